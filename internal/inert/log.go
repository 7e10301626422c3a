package inert

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

const (
	// mostOfLine is the length of the longest line of a log, in bytes.
	mostOfLine = 16 << 10
	// mostOfRequest is how much of a log one request can cause, in bytes.
	mostOfRequest = 64 << 10
	// mostOfMessage is more than Most, because a message has words of ours around those from outside.
	mostOfMessage = 2 * Most
	// mostOfStack is for the stack of a panic, which is ours.
	mostOfStack = 8 << 10
	// ownPart is more than a handler itself adds to a line: the time, the level, a trace, the line break.
	ownPart = 512
)

// stackKey is the key under which a stack is logged.
const stackKey = "stack"

// Logger returns the logger with every message and attribute made inert, and every line bounded at 16 KiB; and what one request
// causes at 64 KiB, where its context is one of WithBudget. A time.Duration becomes a number of seconds. redact, if not nil, takes the secrets out before.
func Logger(l *slog.Logger, redact func(string) string) *slog.Logger {
	h, ok := l.Handler().(handler)
	if !ok {
		h.next = l.Handler()
	}
	if redact != nil {
		h.redact = redact
	}
	return slog.New(h)
}

type handler struct {
	next   slog.Handler
	redact func(string) string // nil changes nothing
}

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h handler) WithGroup(name string) slog.Handler {
	h.next = h.next.WithGroup(cut(name, Most))
	return h
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	l := line{h: h, left: ownPart}
	h.next = h.next.WithAttrs(l.attributes(attrs))
	return h
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	l := line{h: h, left: mostOfLine - 2*ownPart} // one part for what WithAttrs has brought
	shown := slog.NewRecord(r.Time, r.Level, l.text(r.Message, mostOfMessage), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		shown.AddAttrs(l.attribute(a))
		return true
	})
	if b, ok := ctx.Value(budgetKey{}).(*budget); ok {
		if used := b.used.Add(int64(mostOfLine - ownPart - l.left)); used > mostOfRequest-mostOfLine/8 {
			if b.told.Swap(true) {
				return nil
			}
			shown = slog.NewRecord(r.Time, slog.LevelWarn, "the rest of what this request causes is not logged", r.PC)
		}
	}
	return h.next.Handle(ctx, shown)
}

// line is a line that is being made.
type line struct {
	h    handler
	left int // bytes that its texts may still have
}

// text is a text of the line, no longer than most, and than what is left.
func (l *line) text(text string, most int) string {
	if l.h.redact != nil {
		text = l.h.redact(text)
	}
	return l.fit(cut(text, most))
}

// fit takes an inert text's share of the line.
func (l *line) fit(text string) string {
	if n := cost(text); n <= l.left {
		l.left -= n
		return text
	}
	room, end := l.left-len(mark), 0
	for i, r := range text {
		if room -= costOf(r); room < 0 {
			break
		}
		end = i + utf8.RuneLen(r)
	}
	l.left = 0
	return text[:end] + mark
}

func (l *line) attributes(attrs []slog.Attr) []slog.Attr {
	all := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		all = append(all, l.attribute(a))
	}
	return all
}

func (l *line) attribute(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() != slog.KindGroup || a.Key != "" {
		if isWord(a.Key) { // ours, also where a secret is the same word
			a.Key = l.fit(a.Key)
		} else {
			a.Key = l.text(a.Key, Most)
		}
		l.left -= 4 // quotes, and what separates it from the others
	}
	switch a.Value.Kind() {
	case slog.KindString:
		if a.Key == stackKey {
			text := a.Value.String()
			a.Value = slog.StringValue(l.fit(lines(text[:min(len(text), mostOfStack)])))
			break
		}
		a.Value = slog.StringValue(l.text(a.Value.String(), Most))
	case slog.KindGroup:
		a.Value = slog.GroupValue(l.attributes(a.Value.Group())...)
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case nil, slog.Level, *slog.Source:
		case []string:
			a.Value = slog.AnyValue(l.list(v))
		default:
			a.Value = slog.StringValue(l.text(fmt.Sprint(v), Most))
		}
	case slog.KindDuration: // which JSON would show as nanoseconds
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
		l.left -= len(a.Value.String())
	default:
		l.left -= len(a.Value.String())
	}
	return a
}

// isWord says that a key is one as we write them.
func isWord(key string) bool { return strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_") == "" }

// list is a list of texts, as many as the line has room for.
func (l *line) list(texts []string) []string {
	shown := make([]string, 0, min(len(texts), 64))
	for i, text := range texts {
		if l.left < Most/8 {
			return append(shown, "… and "+strconv.Itoa(len(texts)-i)+" more")
		}
		l.left -= 4
		shown = append(shown, l.text(text, 4*Most))
	}
	return shown
}

// cost is more bytes than an inert text has in a line of slog's handlers, both of which quote.
func cost(text string) int {
	n := 0
	for _, r := range text {
		n += costOf(r)
	}
	return n
}

func costOf(r rune) int {
	switch {
	case strings.ContainsRune("\"\\\n", r):
		return 2
	case r < utf8.RuneSelf || strconv.IsPrint(r):
		return utf8.RuneLen(r)
	}
	return len(`\U0010ffff`)
}

type budgetKey struct{}

type budget struct {
	used atomic.Int64
	told atomic.Bool // that no more is logged
}

// WithBudget returns a context under which no more than 64 KiB are logged: that of a request which can cause many lines.
func WithBudget(ctx context.Context) context.Context {
	return context.WithValue(ctx, budgetKey{}, new(budget))
}

// HasRoom says whether the longest line still fits into the budget of a context, if it has one.
func HasRoom(ctx context.Context) bool {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	return !ok || b.used.Load() <= mostOfRequest-mostOfLine-mostOfLine/8
}
