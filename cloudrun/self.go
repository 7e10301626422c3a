package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"example.com/grpc-health-http/internal/settings"
)

// selfTime is what the answer of checkSelf may take.
const selfTime = 5 * time.Second

// checkSelf asks a proxy that has the same settings of the listener whether it is up. It prints one line: on stdout if it is, else on
// stderr.
func checkSelf(ctx context.Context, s *settings.Settings, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(ctx, selfTime)
	defer cancel()
	scheme, addr, remark := "http", s.ListenAddr, ""
	switch {
	case s.HTTPSVerify: // the port for checks wants a client certificate
		addr = s.MetricsAddr
	case s.HTTPSCert != "":
		scheme, remark = "https", " (its certificate was not verified)"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		fmt.Fprintf(stderr, "down: %v\n", err) // not reached: the settings were validated
		return exitDown
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// The answer says only that somebody listens, and the certificate's names are for callers from elsewhere.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var problems []error
	for _, host := range ownHosts(host) {
		where := scheme + "://" + net.JoinHostPort(host, port) + settings.LivenessPath
		err := askSelf(ctx, client, where)
		if err == nil {
			fmt.Fprintf(stdout, "up: %s answers%s\n", where, remark)
			return exitServing
		}
		problems = append(problems, fmt.Errorf("%s: %w", where, err))
	}
	fmt.Fprintf(stderr, "down: %v\n", problems[0])
	return exitDown
}

// ownHosts are the hosts by which this machine reaches a listener of its own.
func ownHosts(host string) []string {
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		return []string{"127.0.0.1", "::1"}
	}
	return []string{host}
}

// askSelf returns why the answer is not the one of a proxy that is up.
func askSelf(ctx context.Context, client *http.Client, where string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err != nil {
		return errors.Unwrap(err) // a *url.Error: without the address, which the caller names
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	return nil
}
