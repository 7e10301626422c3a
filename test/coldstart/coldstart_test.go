// Package coldstart measures how long each HTTP variant takes from exec to its first verdict. A caller waits that long if the
// platform starts an instance for the request.
//
//	go test ./test/coldstart -bench . -benchtime 20x
package coldstart

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/scripttest"
)

// build builds a variant as it is deployed.
func build(b *testing.B, folder string, flags ...string) string {
	b.Helper()
	return scripttest.Build(b, "example.com/grpc-health-http/"+folder, "program", append(flags, "-ldflags=-s -w")...)
}

// start starts a program whose environment has only env; stop ends it.
func start(b *testing.B, program string, env ...string) (stop func()) {
	b.Helper()
	cmd := exec.Command(program)
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return func() { cmd.Process.Kill(); cmd.Wait() }
}

// freePort returns a port that is not in use.
func freePort(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

func BenchmarkFirstVerdict(b *testing.B) {
	up := healthtest.Start(b)
	b.Run("container", func(b *testing.B) {
		program := build(b, "cloudrun")
		overHTTP(b, program, "GRPC_HEALTH_ADDR="+up.Addr(), "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=127.0.0.1:0")
	})
	b.Run("function", func(b *testing.B) {
		program := build(b, "example/function")
		overHTTP(b, program, "GRPC_HEALTH_ADDR="+up.Addr(), "K_SERVICE=health")
	})
	b.Run("lambda", func(b *testing.B) {
		program := build(b, "lambda", "-tags=lambda.norpc,grpcnotrace")
		for b.Loop() {
			answered := make(chan string, 1)
			invoked := false
			runtime := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/invocation/next") && !invoked:
					invoked = true
					w.Header().Set("Lambda-Runtime-Aws-Request-Id", "1")
					w.Header().Set("Lambda-Runtime-Deadline-Ms", "99999999999999")
					io.WriteString(w, `{"service":""}`)
				case strings.HasSuffix(r.URL.Path, "/register"): // the extension that gets SIGTERM
					w.Header().Set("Lambda-Extension-Identifier", "1")
				case strings.HasSuffix(r.URL.Path, "/next"):
					<-r.Context().Done()
				default:
					body, _ := io.ReadAll(r.Body)
					w.WriteHeader(http.StatusAccepted)
					answered <- string(body)
				}
			}))
			stop := start(b, program, "GRPC_HEALTH_ADDR="+up.Addr(), "AWS_LAMBDA_FUNCTION_NAME=health",
				"AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(runtime.URL, "http://"))
			if body := <-answered; !strings.Contains(body, `"status":"SERVING"`) {
				b.Fatalf("answer %s", body)
			}
			b.StopTimer()
			stop()
			runtime.CloseClientConnections()
			runtime.Close()
			b.StartTimer()
		}
	})
}

// overHTTP measures a program that listens at PORT.
func overHTTP(b *testing.B, program string, env ...string) {
	for b.Loop() {
		b.StopTimer()
		port := freePort(b)
		b.StartTimer()
		stop := start(b, program, append(env, "PORT="+port)...)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Microsecond) {
			response, err := http.Get("http://127.0.0.1:" + port + "/")
			if err == nil {
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					b.Fatalf("status %d", response.StatusCode)
				}
				break
			}
			if time.Now().After(end) {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		stop()
		b.StartTimer()
	}
}
