//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

// poll is askAll for plain connections: one thread asks for all callers. A goroutine for each would cost as much as
// the server under test.
func poll(callers []*caller, from, until time.Time) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	defer syscall.Close(epoll)
	sockets := make([]int, len(callers))
	for i, c := range callers {
		if sockets[i], err = c.socket(); err != nil {
			return nil, err
		}
		defer syscall.Close(sockets[i])
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}
		if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, sockets[i], &event); err != nil {
			return nil, os.NewSyscallError("epoll_ctl", err)
		}
	}
	began := make([]time.Time, len(callers))
	ask := func(i int, now time.Time) error {
		began[i] = now
		request, err := callers[i].request()
		if err != nil {
			return err
		}
		_, err = syscall.Write(sockets[i], request)
		return os.NewSyscallError("write", err)
	}
	for i := range callers {
		if err := ask(i, time.Now()); err != nil {
			return nil, err
		}
	}
	var took []time.Duration
	events := make([]syscall.EpollEvent, 256)
	for asking := len(callers); asking > 0; {
		n, err := syscall.EpollWait(epoll, events, int(patience.Milliseconds()))
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("epoll_wait", err)
		}
		if n == 0 {
			return nil, fmt.Errorf("no answer within %v", patience)
		}
		for _, event := range events[:n] {
			i := int(event.Fd)
			read, err := syscall.Read(sockets[i], callers[i].room())
			if err != nil {
				return nil, fmt.Errorf("read the answer: %w", err)
			}
			if read == 0 {
				return nil, errors.New("the server ended a connection before its answer")
			}
			whole, err := callers[i].took(read)
			if err != nil {
				return nil, err
			}
			if !whole {
				continue
			}
			now := time.Now()
			if !now.Before(from) && now.Before(until) {
				took = append(took, now.Sub(began[i]))
			}
			if !now.Before(until) {
				asking--
			} else if err := ask(i, now); err != nil {
				return nil, err
			}
		}
	}
	return took, nil
}

// socket is the caller's connection as a socket that the runtime does not poll, too. The caller must close it.
func (c *caller) socket() (int, error) {
	raw, err := c.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("take a connection over: %w", err)
	}
	var socket int
	var errDup error
	if err := raw.Control(func(fd uintptr) { socket, errDup = syscall.Dup(int(fd)) }); err != nil {
		return 0, fmt.Errorf("take a connection over: %w", err)
	}
	return socket, errors.Join(errDup, c.conn.Close())
}
