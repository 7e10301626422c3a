//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// probeEvery is the time between two probes of a kind.
	probeEvery = 75 * time.Millisecond
	// budget is the time for a check with the default settings.
	budget = 2 * time.Second
)

// probes is what the probes from the side got.
type probes struct {
	asked, wrong int
	slowest      time.Duration
	first        string        // what the first wrong one got
	firstAt      time.Duration // since the attack began
}

// probe asks from the side, until stop is called, for the configured service over a connection of its own, and for /livez of both
// ports over new connections.
func (t *trial) probe() (stop func() probes) {
	var mu sync.Mutex
	var all probes
	var asking sync.WaitGroup
	began, done := time.Now(), make(chan struct{})
	targets := []struct {
		url  string
		keep bool
		want string
	}{{t.proxy.metricsURL + "/livez", false, ""}, {t.proxy.url + "/livez", false, ""}, {t.proxy.url + t.path, true, t.wants}}
	if t.unprobed {
		targets = targets[:1]
	}
	for _, target := range targets {
		client := t.client()
		client.Transport.(*http.Transport).DisableKeepAlives = !target.keep
		asking.Go(func() {
			defer client.CloseIdleConnections()
			for over := false; !over; {
				at := time.Now()
				err := t.ask(client, target.url, target.want)
				took := time.Since(at)
				mu.Lock()
				all.asked++
				all.slowest = max(all.slowest, took)
				if err != nil {
					if all.wrong++; all.wrong == 1 {
						all.first, all.firstAt = err.Error(), at.Sub(began)
					}
				}
				mu.Unlock()
				select {
				case <-done:
					over = true
				case <-time.After(probeEvery):
				}
			}
		})
	}
	return func() probes {
		close(done)
		asking.Wait()
		return all
	}
}

// client returns a client with connections of its own, which gives up when a check is late. It has another address than the attackers, as
// a caller within bounds has.
func (t *trial) client() *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: t.clientTLS()}, Timeout: budget + t.slack}
}

// ask makes a request with the trial's token, and returns an error where the answer is not the wanted verdict. Without a verdict
// status 200 is wanted.
func (t *trial) ask(client *http.Client, url, want string) error {
	return askWith(client, t.token, url, want)
}

func askWith(client *http.Client, token, url, want string) error {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%s: body: %w", url, err)
	}
	got := response.Header.Get("Grpc-Health-Status")
	if want == got || want == "" && response.StatusCode == http.StatusOK || want == anyVerdict && got != "" && got != "OVERLOADED" {
		return nil
	}
	return fmt.Errorf("%s: %s %s, want %s: %.100s", url, response.Status, got, want, bytes.TrimSpace(body))
}
