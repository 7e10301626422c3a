//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// checker dials for each check, asks, and closes.
type checker struct {
	targets, port int
	roots         *x509.CertPool // nil is without TLS
}

const (
	tick    = 50 * time.Millisecond // how often every wakes up, as ours does
	atOnce  = 64                    // dials
	timeout = 2 * time.Second
)

// every checks all targets once in an interval, spread evenly over it.
func (c checker) every(interval time.Duration) {
	room := make(chan struct{}, atOnce)
	began, done := time.Now(), 0
	for range time.Tick(min(tick, interval)) {
		for due := int(time.Since(began) * time.Duration(c.targets) / interval); done < due; done++ {
			room <- struct{}{}
			go func(i int) {
				defer func() { <-room }()
				if err := c.check(i); err != nil {
					log.Print(err)
				}
			}(done % c.targets)
		}
	}
}

// sweep checks all targets once.
func (c checker) sweep() error {
	var checking sync.WaitGroup
	errs := make([]error, atOnce)
	for first := range atOnce {
		checking.Go(func() {
			for i := first; i < c.targets && errs[first] == nil; i += atOnce {
				errs[first] = c.check(i)
			}
		})
	}
	checking.Wait()
	return errors.Join(errs...)
}

// request is the same for each target.
var request = func() []byte {
	out := appendFrame([]byte(http2.ClientPreface), http2.FrameSettings, 0, 0, nil)
	out = appendFrame(out, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, fields(
		":method", "POST", ":scheme", "http", ":path", "/grpc.health.v1.Health/Check", ":authority", "swarm",
		"content-type", "application/grpc", "te", "trailers"))
	return appendFrame(out, http2.FrameData, http2.FlagDataEndStream, 1, []byte{0, 0, 0, 0, 0})
}()

func (c checker) check(i int) error {
	host := fmt.Sprintf("127.%d.%d.%d", 1+i>>16, i>>8&0xff, i&0xff) // as the bench's
	address := net.JoinHostPort(host, strconv.Itoa(c.port))
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	defer func() { conn.Close() }()
	conn.SetDeadline(time.Now().Add(timeout))
	if c.roots != nil {
		conn = tls.Client(conn, &tls.Config{RootCAs: c.roots, ServerName: host, NextProtos: []string{"h2"}})
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 1<<10)
	serving := false
	for {
		f, err := readFrame(in)
		switch {
		case err != nil:
			return err
		case f.kind == http2.FrameData:
			serving = bytes.Equal(f.payload, answerMessage)
		case f.kind == http2.FrameHeaders && f.flags.Has(http2.FlagHeadersEndStream):
			if !serving || !bytes.Equal(f.payload, answerTrailer) {
				return fmt.Errorf("%s is not SERVING", address)
			}
			return nil
		}
	}
}
