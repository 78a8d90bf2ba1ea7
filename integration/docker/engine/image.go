package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/retrypg/retrypg/internal/pgtest"
)

const (
	imageVariable = "RETRYPG_TEST_IMAGE"
	publicImage   = "postgres:17"
	ownRepository = "retrypg-test/postgres"

	// pullTimeout bounds the pull of about 160 MB.
	pullTimeout = 5 * time.Minute
)

// provideImage returns the name of a PostgreSQL image that the engine holds.
func provideImage(ctx context.Context, docker *client) (string, error) {
	asked := os.Getenv(imageVariable)
	name := asked
	if name == "" {
		name = publicImage
	}
	if docker.hasImage(ctx, name) {
		report("using the image %s", name)
		return name, nil
	}
	pullCtx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	report("pulling the image %s", name)
	_, err := docker.run(pullCtx, nil, "pull", "--quiet", name)
	if err == nil {
		return name, nil
	}
	if asked != "" {
		return "", fmt.Errorf("get the image that %s names: %w", imageVariable, err)
	}
	report("it cannot be pulled: %v", err)
	return buildImage(ctx, docker)
}

// buildImage makes an image of the PostgreSQL on this machine.
func buildImage(ctx context.Context, docker *client) (string, error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("make an image: the programs of this %s machine do not run in a Linux container; "+
			"pull %s, or set %s to an image that the engine holds", runtime.GOOS, publicImage, imageVariable)
	}
	found, err := pgtest.Find(ctx)
	if err != nil {
		return "", fmt.Errorf("find a PostgreSQL to make an image of: %w", err)
	}
	files, err := collect(ctx, found)
	if err != nil {
		return "", fmt.Errorf("collect the files of PostgreSQL %s: %w", found.Version, err)
	}
	name := fmt.Sprintf("%s:%d", ownRepository, found.Major)
	if err := importImage(ctx, docker, files, name, found.BinDir); err != nil {
		return "", fmt.Errorf("make the image %s: %w", name, err)
	}
	if err := setStopSignal(ctx, docker, name); err != nil {
		return "", fmt.Errorf("set the stop signal of the image %s: %w", name, err)
	}
	report("made the image %s of %s", name, found.BinDir)
	return name, nil
}

// importImage makes an image of the files. It needs no image builder, of which
// each engine version has another one.
func importImage(ctx context.Context, docker *client, files *rootfs, name, binDir string) error {
	read, write := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		write.CloseWithError(files.writeTar(write))
	}()
	_, err := docker.run(ctx, read, "import",
		"--change", "ENV PATH="+binDir+":/usr/bin:/bin",
		"--change", "ENV PGDATA="+dataDir,
		"--change", "EXPOSE 5432",
		"--change", fmt.Sprintf("USER %d:%d", serverID, serverID),
		"--change", "ENTRYPOINT ["+`"`+entrypointPath+`"]`,
		"--change", `CMD ["postgres"]`,
		"-", name)
	read.Close() // ends the writer even if docker did not read to the end
	<-written
	return err
}

// setStopSignal makes "docker stop" ask for PostgreSQL's fast shutdown, as the
// official image does: with the default, SIGTERM, the server waits for its
// clients to leave and is killed after ten seconds. An import cannot set it, a
// container can, and passes it on to an image that is made of it.
func setStopSignal(ctx context.Context, docker *client, name string) error {
	id, err := docker.run(ctx, nil, "create", "--stop-signal", "SIGINT", name)
	if err != nil {
		return err
	}
	if _, err = docker.run(ctx, nil, "commit", id, name); err != nil {
		return err
	}
	_, err = docker.run(ctx, nil, "rm", id)
	return err
}
