//go:build observability

package observability_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// prometheus is a running Prometheus.
type prometheus struct{ url string }

// sample is one element of an instant vector.
type sample struct {
	labels map[string]string
	value  float64
}

// ask returns the data of an answer of the HTTP API.
func (p prometheus) ask(path string, query url.Values, data any) error {
	resp, err := http.Get(p.url + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("prometheus: %s", answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// query returns the result of an expression now.
func (p prometheus) query(expr string) ([]sample, error) {
	var data struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.ask("/api/v1/query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, fmt.Errorf("%w\nof %s", err, expr)
	}
	if data.ResultType != "vector" {
		return nil, fmt.Errorf("a %s instead of a vector, of %s", data.ResultType, expr)
	}
	var samples []sample
	for _, r := range data.Result {
		value, err := strconv.ParseFloat(r.Value[1].(string), 64)
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample{r.Metric, value})
	}
	return samples, nil
}

// rule is an alert as Prometheus has read it.
type rule struct {
	Name, Query, Health, LastError string
	Annotations, Labels            map[string]string
}

// rules returns all alerts.
func (p prometheus) rules() ([]rule, error) {
	var data struct{ Groups []struct{ Rules []rule } }
	if err := p.ask("/api/v1/rules", nil, &data); err != nil {
		return nil, err
	}
	var all []rule
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}
