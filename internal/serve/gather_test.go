package serve

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// gathering returns a connection that gathers what is written, and its client, which reads a write whole or waits.
func gathering(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	client, server := net.Pipe()
	c := &conn{Conn: server, table: &connections{clients: make(map[netip.Addr]int), open: make(map[*conn]struct{})}}
	c.outer = c
	c.gathers.Store(true)
	t.Cleanup(func() { client.Close(); server.Close() })
	return c, client
}

func write(t *testing.T, c *conn, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if n, err := c.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
}

// readOne reads what one write has sent.
func readOne(t *testing.T, client net.Conn) string {
	t.Helper()
	b := make([]byte, 64<<10)
	n, err := client.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// What is written while the connection does not take more is one write, in its order.
func TestGathered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, client := gathering(t)
		for round := range 3 { // buffers are used again
			write(t, c, "headers ")
			synctest.Wait() // the client does not read yet
			write(t, c, "message ", "trailers")
			got := []string{readOne(t, client), readOne(t, client)}
			if !slices.Equal(got, []string{"headers ", "message trailers"}) {
				t.Errorf("round %d: the writes are %q", round, got)
			}
			synctest.Wait()
		}
	})
}

// A client that does not read makes writers wait: little is kept for it.
func TestGatheredIsBounded(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, maxGathered - 1, maxGathered, maxGathered + 1, 16 << 10} {
		synctest.Test(t, func(t *testing.T) {
			c, client := gathering(t)
			const parts = 200
			written, all := 0, make(chan error, 1)
			go func() {
				for i := range parts {
					if _, err := c.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
						all <- err
						return
					}
					written++
				}
				all <- nil
			}()
			synctest.Wait()
			if kept, most := written*size, 2*max(size, maxGathered); kept > most || written == 0 {
				t.Errorf("parts of %d: %d bytes are kept for a client that does not read, want %d at most", size, kept, most)
			}
			got := make([]byte, parts*size)
			if _, err := io.ReadFull(client, got); err != nil {
				t.Fatal(err)
			}
			for i := range parts {
				if part := got[i*size : (i+1)*size]; !bytes.Equal(part, bytes.Repeat([]byte{byte(i)}, size)) {
					t.Fatalf("parts of %d: part %d is another", size, i)
				}
			}
			if err := <-all; err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if room := max(cap(c.gather.pending), cap(c.gather.spare)); room > maxSpare {
				t.Errorf("parts of %d: an idle connection keeps room for %d bytes", size, room)
			}
		})
	}
}

// Whatever ends a connection, what has been written goes out before, and a client that does not read delays the end for a moment only.
func TestGatheredEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*conn) error{
		"close": (*conn).Close,
		"a deadline that is over, as crypto/tls sets it": func(c *conn) error {
			return errors.Join(c.SetWriteDeadline(time.Now()), c.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, client := gathering(t)
				write(t, c, "the last ", "answer")
				synctest.Wait() // it is being written
				ended := make(chan error, 1)
				go func() { ended <- end(c) }()
				synctest.Wait()
				if got, err := io.ReadAll(client); string(got) != "the last answer" || err != nil {
					t.Errorf("the client has %q, %v", got, err)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				c, _ := gathering(t)
				write(t, c, "never read")
				began := time.Now()
				_ = end(c) // may say that the connection is broken
				if took := time.Since(began); took == 0 || took > 2*endWithin {
					t.Errorf("the end takes %v, want %v", took, endWithin)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				c, _ := gathering(t)
				c.table.cut.Store(true)
				write(t, c, "never read")
				began := time.Now()
				_ = end(c)
				if took := time.Since(began); took != 0 {
					t.Errorf("when all is cut off, the end takes %v", took)
				}
			})
		})
	}
}

// A write that fails closes the connection, so that reads fail too; the next write has the error.
func TestGatheredFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, client := gathering(t)
		write(t, c, "an answer")
		waits := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, maxGathered+1))
			_, again := c.Write(make([]byte, maxGathered))
			waits <- errors.Join(err, again)
		}()
		synctest.Wait()
		_ = c.Conn.SetWriteDeadline(time.Now()) // the client is there, and could send
		if err := <-waits; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write after one that failed: %v", err)
		}
		go client.Write([]byte("more"))
		if _, err := c.Conn.Read(make([]byte, 1)); err == nil {
			t.Error("the connection can still be read from")
		}
	})
}

// What comes at once is read at once, and given in parts as small as net/http wants. Bytes for which there is much room are not copied twice.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	c, client := gathering(t)
	sent := slices.Repeat([]byte("frame of HTTP/2"), 20)
	go func() {
		client.Write(sent[:100])
		client.Write(sent[100:]) // for which readAhead would do, and which goes where there is room for more
		client.Close()
	}()
	var got []byte
	for part := 1; ; part = part%9 + 1 {
		if len(got) == 100 {
			part = readAhead
		}
		p := make([]byte, part)
		n, err := c.Read(p)
		if got = append(got, p[:n]...); err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < 100 && len(got)+len(c.ahead) != 100 {
			t.Fatalf("%d bytes are there, and %d more to read", len(got), len(c.ahead))
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("read %q", got)
	}
}
