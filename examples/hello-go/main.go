// Says hello, and how it and what it depends on are. Go's standard library, nothing else.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const (
	timeout = 2 * time.Second  // that the upstream has to answer
	grace   = 10 * time.Second // that requests have to finish
)

type config struct {
	port                        int
	version, greeting, upstream string
}

type check struct {
	Status  string  `json:"status"`
	Latency float64 `json:"latency_ms"`
	Error   string  `json:"error,omitempty"`
}

func read(env func(string) string) (config, error) {
	port, err := strconv.Atoi(env("PORT"))
	if err != nil || port < 1 || port > 65535 {
		return config{}, fmt.Errorf("PORT: is %q, expected a port", env("PORT"))
	}
	c := config{port, env("HEADWAY_VERSION"), env("GREETING"), env("UPSTREAM_URL")}
	if c.version == "" {
		c.version = "dev"
	}
	if c.greeting == "" {
		c.greeting = "hello"
	}
	return c, nil
}

func ask(url string) check {
	begun := time.Now()
	client := http.Client{Timeout: timeout}
	answer, err := client.Get(url)
	took := float64(time.Since(begun).Microseconds()) / 1000
	if err != nil {
		return check{"down", took, "no answer"}
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return check{"down", took, fmt.Sprintf("it answers %d", answer.StatusCode)}
	}
	return check{"ok", took, ""}
}

func handler(c config) http.Handler {
	begun := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			say(w, http.StatusNotFound, map[string]any{"error": "there is no " + r.URL.Path})
			return
		}
		say(w, http.StatusOK, map[string]any{"message": c.greeting})
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, map[string]any{"status": "ok", "version": c.version})
	})
	mux.HandleFunc("/health/detailed", func(w http.ResponseWriter, _ *http.Request) {
		status, checks := "ok", map[string]check{}
		if c.upstream != "" {
			checks["upstream"] = ask(c.upstream)
		}
		for _, one := range checks {
			if one.Status != "ok" {
				status = "degraded"
			}
		}
		uptime := time.Since(begun).Seconds()
		said := map[string]any{"status": status, "version": c.version, "uptime_seconds": uptime, "checks": checks}
		say(w, http.StatusOK, said)
	})
	return mux
}

func say(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func main() {
	c, err := read(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	host := os.Getenv("HOST")
	if host == "" {
		host = "127.0.0.1"
	}
	server := &http.Server{Addr: net.JoinHostPort(host, strconv.Itoa(c.port)), Handler: handler(c)}
	stopped := make(chan struct{})
	go func() {
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM, os.Interrupt)
		<-told
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		_ = server.Shutdown(ctx)
		close(stopped)
	}()
	fmt.Printf("{\"level\": \"info\", \"message\": \"listening\", \"port\": %d}\n", c.port)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-stopped
}
