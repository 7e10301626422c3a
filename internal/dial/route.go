package dial

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"time"

	"example.com/grpc-health-http/internal/target"
)

// route is one way to the target: an address, and the proxy that leads there.
type route struct {
	target.Address
	proxy *url.URL // nil connects directly
}

// open opens the network connection, through the proxy where there is one.
func (dl *Dialer) open(ctx context.Context, to route) (net.Conn, error) {
	if to.proxy == nil {
		return dl.o.Connect(ctx, to.Network, to.Text)
	}
	if to.proxy.Scheme != "http" {
		return nil, errors.New("the proxy: only http:// proxies are supported")
	}
	at := to.proxy.Host
	if to.proxy.Port() == "" {
		at = net.JoinHostPort(to.proxy.Hostname(), "80")
	}
	raw, err := dl.o.Connect(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("the proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	through, err := to.tunnel(raw)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("the proxy: %w", err)
	}
	return through, nil
}

// mostOfHead is how much of a proxy's answer is read for its header, in bytes.
const mostOfHead = 64 << 10

// tunnel asks an HTTP proxy for a connection to the address (RFC 9110, section 9.3.6).
func (to route) tunnel(raw net.Conn) (net.Conn, error) {
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: to.Text}, Host: to.Text, Header: http.Header{}}
	if user := to.proxy.User; user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := request.Write(raw); err != nil {
		return nil, err
	}
	head := &io.LimitedReader{R: raw, N: mostOfHead}
	reader := bufio.NewReader(head)
	response, err := http.ReadResponse(reader, request)
	switch {
	case err != nil && head.N <= 0:
		return nil, fmt.Errorf("the header of its answer is longer than %d KiB", mostOfHead>>10)
	case err != nil:
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("it refused CONNECT with status %d", response.StatusCode)
		if response.StatusCode >= http.StatusInternalServerError { // it did not reach the target
			return nil, passing{err}
		}
		return nil, err
	}
	if reader.Buffered() > 0 {
		head.N = math.MaxInt64
		return &bufferedConn{raw, reader}, nil
	}
	return raw, nil
}

// bufferedConn first gives what was read ahead.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (b *bufferedConn) Read(p []byte) (int, error) { return b.reader.Read(p) }
