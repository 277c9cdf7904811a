package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

func get(t *testing.T, c config, path string) map[string]any {
	t.Helper()
	answer := httptest.NewRecorder()
	handler(c).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	var said map[string]any
	if err := json.Unmarshal(answer.Body.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	return said
}

func TestItIsTheVersionThatWasReleased(t *testing.T) {
	if said := get(t, config{version: "abc1234"}, "/health"); said["version"] != "abc1234" {
		t.Error(said)
	}
}

func TestItNamesAnUpstreamThatIsGone(t *testing.T) {
	upstream := httptest.NewServer(handler(config{}))
	if said := get(t, config{upstream: upstream.URL}, "/health/detailed"); said["status"] != "ok" {
		t.Error(said)
	}
	upstream.Close()
	if said := get(t, config{upstream: upstream.URL}, "/health/detailed"); said["status"] != "degraded" {
		t.Error(said)
	}
}

func TestAWrongPortIsSaid(t *testing.T) {
	if _, err := read(func(string) string { return "http" }); err == nil {
		t.Error("no error")
	}
}
