package compat_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"
)

// never is longer than a test runs: a River that polls this seldom finds its jobs by NOTIFY or not at all.
const never = 10 * time.Minute

type greeting struct {
	Name string `json:"name" river:"unique"`
}

func (greeting) Kind() string { return "greeting" }

// greeter works greetings, except those for nobody.
type greeter struct {
	river.WorkerDefaults[greeting]
}

var errNobody = errors.New("nobody to greet")

func (*greeter) Work(_ context.Context, job *river.Job[greeting]) error {
	if job.Args.Name == "" {
		return errNobody
	}
	return nil
}

// newRiver makes River's tables and a client that works the default queue.
func newRiver[Tx any](t *testing.T, ctx context.Context, driver riverdriver.Driver[Tx], poll time.Duration) *river.Client[Tx] {
	t.Helper()
	silent := slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: silent})
	require.NoError(t, err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	require.NoError(t, err)
	validated, err := migrator.Validate(ctx, nil)
	require.NoError(t, err)
	require.True(t, validated.OK)

	workers := river.NewWorkers()
	river.AddWorker(workers, &greeter{})
	client, err := river.NewClient(driver, &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2}},
		Workers:           workers,
		Logger:            silent,
		MaxAttempts:       1,
		FetchPollInterval: poll,
		FetchCooldown:     10 * time.Millisecond,
		ID:                "worker",
	})
	require.NoError(t, err)
	return client
}

// useRiver inserts jobs, works them, and notes what becomes of them. Some are inserted before the client is started,
// the others while it waits for them.
func useRiver[Tx any](t *testing.T, s *stage, client *river.Client[Tx]) {
	t.Helper()
	events, stopEvents := client.Subscribe(river.EventKindJobCompleted, river.EventKindJobFailed)
	defer stopEvents()
	_, err := client.Insert(s.ctx, greeting{Name: "Ada"}, nil)
	require.NoError(t, err)
	unique := &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}, Tags: []string{"polite"}, Metadata: []byte(`{"a": 1}`)}
	for range 2 {
		res, err := client.Insert(s.ctx, greeting{Name: "Bob"}, unique)
		require.NoError(t, err)
		s.note("skipped as a duplicate", res.UniqueSkippedAsDuplicate)
	}
	many, err := client.InsertMany(s.ctx, []river.InsertManyParams{{Args: greeting{Name: "Cyd"}}, {Args: greeting{}}})
	require.NoError(t, err)
	s.note("many", len(many))
	later, err := client.Insert(s.ctx, greeting{Name: "later"}, &river.InsertOpts{ScheduledAt: time.Now().Add(never)})
	require.NoError(t, err)
	cancelled, err := client.JobCancel(s.ctx, later.Job.ID)
	require.NoError(t, err)
	s.note("cancelled", string(cancelled.State))

	require.NoError(t, client.Start(s.ctx))
	done := map[string]string{}
	await := func(n int) {
		for len(done) < n {
			select {
			case event := <-events:
				done[string(event.Job.EncodedArgs)] = string(event.Job.State)
			case <-s.ctx.Done():
				require.FailNow(t, "jobs were not worked", "worked so far: %v", done)
			}
		}
	}
	await(4)
	_, err = client.Insert(s.ctx, greeting{Name: "while it waits"}, nil)
	require.NoError(t, err)
	await(5)
	s.note("worked", done)
	require.NoError(t, client.Stop(s.ctx))

	listed, err := client.JobList(s.ctx, river.NewJobListParams().First(100).OrderBy(river.JobListOrderByID, river.SortOrderAsc))
	require.NoError(t, err)
	for _, job := range listed.Jobs {
		if job.State == rivertype.JobStateCancelled {
			job.Metadata = nil // says when it was cancelled
		}
		s.note("job", []any{string(job.EncodedArgs), string(job.State), job.Attempt, job.AttemptedBy, job.Tags, string(job.Metadata), texts(job.Errors)})
	}
	_, err = client.JobGet(s.ctx, 4711)
	s.fail("no such job", err)
}

func texts(failures []rivertype.AttemptError) (texts []string) {
	for _, f := range failures {
		texts = append(texts, f.Error)
	}
	return texts
}
