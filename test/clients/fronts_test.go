package clients

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/test/healthtest"
)

// shortDir makes a folder with a short path, for unix sockets. They need no port that could be another's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve runs a server in the foreground until the test ends, and returns when it listens on all its sockets.
func serve(t *testing.T, cmd *exec.Cmd, sockets ...string) {
	t.Helper()
	var written bytes.Buffer
	cmd.Stdout, cmd.Stderr = &written, &written
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails only if it has ended
		<-done
	})
	for _, socket := range sockets {
		healthtest.Eventually(t, socket+" accepts connections", func() bool {
			select {
			case <-done:
				t.Fatalf("%v: %v\n%s", cmd.Args, cmd.ProcessState, written.String())
			default:
			}
			conn, err := net.Dial("unix", socket)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
}

// front is a gRPC proxy in front of ours: sockets where it forwards to the listener without TLS, and to the one with TLS.
type front struct{ plain, secure string }

// haproxyFor is HAProxy in front of a deployment. It checks its servers by HTTP, too: the first of the services.
type haproxyFor struct {
	front
	stats string
}

// The names of HAProxy's servers that are checked, and how.
const (
	byOptions    = "options"   // option httpchk, as it is
	byGet        = "get"       // GET over HTTP/2 without TLS
	byGetTLS     = "get_tls"   // GET over HTTP/2 with TLS
	byGetHTTP1   = "get_http1" // GET over HTTP/1.1
	haproxyCheck = "check inter 200ms fall 1 rise 1"
)

func startHAProxy(t *testing.T, program string, d *deployment) haproxyFor {
	t.Helper()
	dir := shortDir(t)
	h := haproxyFor{front{filepath.Join(dir, "plain"), filepath.Join(dir, "secure")}, filepath.Join(dir, "stats")}
	uri := d.httpPath(d.state.services[0])
	checks := func(name, line, server string) string {
		return fmt.Sprintf("backend %s\n\toption httpchk %s\n\tserver s %s %s\n", name, line, server, haproxyCheck)
	}
	tls := fmt.Sprintf("%s ssl ca-file %s verify required alpn h2", d.secure, d.ca)
	config := fmt.Sprintf(`
global
	stats socket unix@%[1]s level operator
defaults
	mode http
	timeout connect 30s
	timeout client 60s
	timeout server 60s
	timeout check 60s
frontend plain
	bind unix@%[2]s proto h2
	default_backend plain
frontend secure
	bind unix@%[3]s proto h2
	default_backend secure
backend plain
	server proxy %[4]s proto h2
backend secure
	server proxy %[5]s
`, h.stats, h.plain, h.front.secure, d.plain, tls) +
		checks(byGet, "GET "+uri, d.plain+" proto h2") +
		checks(byGetTLS, "GET "+uri, tls+" check-alpn h2") +
		checks(byGetHTTP1, "GET "+uri, d.plain)
	// Without a method and a path HAProxy asks with OPTIONS for "/", which is the whole server.
	if d.state.services[0] == "" {
		config += checks(byOptions, "", d.plain+" proto h2")
	} else {
		config += checks(byOptions, "OPTIONS "+uri, d.plain+" proto h2")
	}
	file := filepath.Join(dir, "haproxy.cfg")
	writeFile(t, file, config)
	serve(t, exec.Command(program, "-db", "-f", file), h.stats, h.plain, h.front.secure)
	return h
}

// verdict waits until HAProxy has checked a server, and returns what it made of it, such as "L7OK 200".
func (h haproxyFor) verdict(t *testing.T, server string) string {
	t.Helper()
	var found string
	healthtest.Eventually(t, "HAProxy has checked "+server, func() bool {
		conn, err := net.Dial("unix", h.stats)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "show stat\n"); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(strings.TrimSpace(string(text)), "# "))).ReadAll()
		if err != nil {
			t.Fatalf("HAProxy's statistics: %v\n%s", err, text)
		}
		for _, row := range rows[1:] {
			cell := make(map[string]string)
			for i, name := range rows[0] {
				cell[name] = row[i]
			}
			// While a check is in progress, the state is that of the check before it, after an asterisk, and the code is lost.
			status := cell["check_status"]
			if cell["pxname"] == server && cell["svname"] == "s" && status != "INI" && !strings.HasPrefix(status, "*") {
				found = status + " " + cell["check_code"]
			}
		}
		return found != ""
	})
	return found
}

// startNginx runs nginx, as one process, in front of a deployment.
func startNginx(t *testing.T, program string, d *deployment) front {
	t.Helper()
	dir := shortDir(t)
	f := front{filepath.Join(dir, "plain"), filepath.Join(dir, "secure")}
	file := filepath.Join(dir, "nginx.conf")
	// Up to release 1.25 HTTP/2 is a word of listen, and there is no "http2 on".
	writeFile(t, file, fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen unix:%[2]s http2;
		location / { grpc_pass grpc://%[4]s; }
	}
	server {
		listen unix:%[3]s http2;
		location / {
			grpc_pass grpcs://%[5]s;
			grpc_ssl_name localhost;
			grpc_ssl_verify on;
			grpc_ssl_trusted_certificate %[6]s;
		}
	}
}
`, dir, f.plain, f.secure, d.plain, d.secure, d.ca))
	serve(t, exec.Command(program, "-p", dir, "-c", file, "-e", "stderr"), f.plain, f.secure)
	return f
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
