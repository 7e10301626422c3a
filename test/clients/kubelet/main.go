// Command kubelet probes gRPC servers with the kubelet's own code, as the kubelet calls it: with a pod's address and port, and the
// service and time-out of the probe. Each line of standard input is a question, each line of standard output its answer,
// both as in clients/programs_test.go. It is a module of its own, so that nothing of Kubernetes is a dependency of what is released.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
)

// question is what to ask. Where it names a CA, TLS is used; the kubelet verifies no certificate.
type question struct {
	Target, Service, CA string
	Seconds             float64
}

// answer is what the kubelet makes of it, and the text of its event.
type answer struct {
	Healthy bool   `json:"healthy"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(questions io.Reader, answers io.Writer) error {
	prober, in, out := grpcprobe.New(), json.NewDecoder(questions), json.NewEncoder(answers)
	for {
		var q question
		if err := in.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a question: %w", err)
		}
		host, portText, err := net.SplitHostPort(q.Target)
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		port, err := strconv.Atoi(portText)
		if err != nil {
			return fmt.Errorf("target's port: %w", err)
		}
		timeout := time.Duration(q.Seconds * float64(time.Second))
		result, message, err := prober.Probe(host, q.Service, port, timeout, grpcprobe.ProbeOptions{UseTLS: q.CA != ""})
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		if err := out.Encode(answer{result == probe.Success, message}); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
	}
}
