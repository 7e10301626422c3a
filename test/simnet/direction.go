package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// segment is bytes, or an end, on their way.
type segment struct {
	due  time.Time
	data []byte
	end  error // io.EOF or a reset; nil for bytes
}

// direction is what one side of a connection sends and the other reads.
type direction struct {
	net      *Net
	toClient bool
	timer    *time.Timer // of the reader; nil before it first waits

	mu       sync.Mutex
	queue    []segment // in the order of their due times
	last     time.Time // due time of the latest segment
	lost     bool      // what is sent is lost
	closed   bool      // by the reader
	end      error     // what the reader gets; nil while there can be more
	told     bool      // of a reset: the reader, or whoever writes the other way, has got it
	deadline time.Time // of the reader
	changed  chan struct{}
}

func newDirection(n *Net, toClient bool) *direction {
	return &direction{net: n, toClient: toClient, changed: make(chan struct{}, 1)}
}

// wakeLocked has the reader look again.
func (d *direction) wakeLocked() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// send puts a segment on its way; it takes the delay, and more where it would overtake an earlier one.
func (d *direction) send(s segment, delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost || d.end != nil {
		return
	}
	s.due = time.Now().Add(delay)
	if s.due.Before(d.last) {
		s.due = d.last
	}
	d.last = s.due
	d.queue = append(d.queue, s)
	d.wakeLocked()
}

// postpone makes all that is on its way arrive later.
func (d *direction) postpone(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.queue {
		d.queue[i].due = d.queue[i].due.Add(delay)
	}
	d.last = d.last.Add(delay)
}

// deliver makes all that is on its way arrive now.
func (d *direction) deliver() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for i := range d.queue {
		if d.queue[i].due.After(now) {
			d.queue[i].due = now
		}
	}
	if d.last.After(now) {
		d.last = now
	}
	d.wakeLocked()
}

// lose loses all that is on its way, and all that is sent from now on.
func (d *direction) lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost, d.queue = true, nil
}

// fail ends the reading at once.
func (d *direction) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.end == nil {
		d.end = err
	}
	d.queue = nil
	d.wakeLocked()
}

// stopReading is the reader's Close.
func (d *direction) stopReading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed, d.queue = true, nil
	d.wakeLocked()
}

// dead says that nothing comes any more.
func (d *direction) dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed || d.end != nil || d.lost
}

// reading is the state of the reader: whether it has closed its side, and what it got as an end.
func (d *direction) reading() (closed bool, end error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed, d.end
}

// endLocked is what the reader gets at the end. A reset is reported once, as systems do.
func (d *direction) endLocked() error {
	if d.end == syscall.ECONNRESET && d.told {
		return io.EOF
	}
	d.told = true
	return d.end
}

// broken is what the peer's reset makes of a write the other way; nil without one.
func (d *direction) broken() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.end == nil && len(d.queue) > 0 && d.queue[0].end == syscall.ECONNRESET && !d.queue[0].due.After(time.Now()) {
		d.end, d.queue = syscall.ECONNRESET, nil
	}
	switch {
	case d.end != syscall.ECONNRESET:
		return nil
	case d.told:
		return syscall.EPIPE
	}
	d.told = true
	d.wakeLocked()
	return d.end
}

func (d *direction) setDeadline(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deadline = t
	d.wakeLocked()
}

// read reads what has arrived, and waits for it.
func (d *direction) read(p []byte) (int, error) {
	for {
		if d.toClient {
			d.net.WaitThawed()
		}
		n, wait, err := d.arrived(p)
		if n > 0 || err != nil {
			return n, err
		}
		d.wait(wait)
	}
}

// forever is a wait that only a change ends.
const forever = time.Duration(-1)

// arrived takes what has arrived. Without any, it says for how long to wait.
func (d *direction) arrived(p []byte) (n int, wait time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	wait = forever
	switch {
	case d.closed:
		return 0, 0, net.ErrClosed
	case d.end != nil:
		return 0, 0, d.endLocked()
	case !d.deadline.IsZero() && !now.Before(d.deadline):
		return 0, 0, os.ErrDeadlineExceeded
	case len(d.queue) == 0:
	case d.queue[0].due.After(now):
		wait = d.queue[0].due.Sub(now)
	case d.queue[0].end != nil:
		d.end, d.queue = d.queue[0].end, nil
		return 0, 0, d.endLocked()
	default:
		s := &d.queue[0]
		n = copy(p, s.data)
		if s.data = s.data[n:]; len(s.data) == 0 {
			d.queue = d.queue[1:]
		}
		return n, 0, nil
	}
	if left := d.deadline.Sub(now); !d.deadline.IsZero() && (wait == forever || left < wait) {
		wait = left
	}
	return 0, wait, nil
}

func (d *direction) wait(wait time.Duration) {
	if wait == forever {
		<-d.changed
		return
	}
	if d.timer == nil {
		d.timer = time.NewTimer(wait)
	} else {
		d.timer.Reset(wait)
	}
	select {
	case <-d.changed:
		d.timer.Stop()
	case <-d.timer.C:
	}
}
