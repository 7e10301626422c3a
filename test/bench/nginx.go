//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// nginxConfig is nginx as a relay of gRPC: a worker for each processor, connections kept on both sides for as long as a measurement
// takes, and no log of requests. The arguments are its address and the upstream's. The syntax is that of nginx 1.22 as well, which Debian 12 has.
const nginxConfig = `worker_processes auto;
daemon off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	keepalive_requests 1000000000;
	upstream grpc { server %[2]s; keepalive 1024; keepalive_requests 1000000000; }
	server {
		listen %[1]s http2;
		location / { grpc_pass grpc://grpc; }
	}
}
`

// findNginx is the path of nginx, "" where there is none. Debian installs it where only root's PATH looks.
func findNginx() string {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// startNginx starts nginx in front of an upstream, and waits until it listens.
func startNginx(ctx context.Context, program, dir, upstream string) (*server, error) {
	prefix, err := os.MkdirTemp(dir, "nginx")
	if err != nil {
		return nil, fmt.Errorf("make a directory for nginx: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // nginx cannot choose a port itself
	if err != nil {
		return nil, fmt.Errorf("find a port for nginx: %w", err)
	}
	addr := listener.Addr().String()
	listener.Close()
	config := filepath.Join(prefix, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, addr, upstream), 0o600); err != nil {
		return nil, fmt.Errorf("configure nginx: %w", err)
	}
	said, err := os.Create(filepath.Join(prefix, "stderr"))
	if err != nil {
		return nil, fmt.Errorf("make a file for nginx's log: %w", err)
	}
	defer said.Close()
	s := &server{cmd: inGroup(ctx, program, "-p", prefix, "-c", config, "-e", "stderr"), addr: addr}
	s.cmd.Stderr = said
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			s.listening = time.Since(began)
			return s, nil
		}
		if time.Since(began) > startWithin || ctx.Err() != nil {
			s.stop()
			text, _ := os.ReadFile(said.Name()) // without it the error is the dial's alone
			return nil, fmt.Errorf("nginx does not listen: %w\n%s", err, text)
		}
		time.Sleep(time.Millisecond)
	}
}
