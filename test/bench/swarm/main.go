//go:build linux

// Command swarm is both ends of the least check of many targets: what a fleet is measured with, and beside. It speaks just as
// much HTTP/2 as a Check needs.
//
//	swarm serve [ROOTS]                           all addresses of 127.0.0.0/8 are SERVING, at one port; TLS, whose root is written to this file
//	swarm check TARGETS PORT INTERVAL [ROOTS]     dials each target once in an interval; 0s: only when /sweep is asked for
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	log.SetFlags(0)
	mux := http.NewServeMux()
	var err error
	switch args := os.Args[1:]; {
	case len(args) > 0 && args[0] == "serve":
		err = serve(args[1:], mux)
	case len(args) > 3 && args[0] == "check":
		err = check(args[1:], mux)
	default:
		err = errors.New("this command is for the bench itself")
	}
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("url=http://%s/", listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}

func serve(args []string, mux *http.ServeMux) error {
	var config *tls.Config
	if len(args) == 1 {
		a, err := newAuthority(args[0])
		if err != nil {
			return err
		}
		config = &tls.Config{GetCertificate: a.certificate, NextProtos: []string{"h2"}}
	}
	s, err := newServer(config)
	if err != nil {
		return err
	}
	go s.serve()
	mux.HandleFunc("/", s.tell)
	return nil
}

func check(args []string, mux *http.ServeMux) error {
	targets, errTargets := strconv.Atoi(args[0])
	port, errPort := strconv.Atoi(args[1])
	interval, errInterval := time.ParseDuration(args[2])
	if err := errors.Join(errTargets, errPort, errInterval); err != nil {
		return err
	}
	c := checker{targets: targets, port: port}
	if len(args) == 4 {
		text, err := os.ReadFile(args[3])
		if err != nil {
			return err
		}
		c.roots = x509.NewCertPool()
		c.roots.AppendCertsFromPEM(text)
	}
	if interval > 0 {
		go c.every(interval)
	}
	mux.HandleFunc("/sweep", func(w http.ResponseWriter, _ *http.Request) {
		if err := c.sweep(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "SERVING\n")
	})
	return nil
}
