package inert

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// hostile has a text of each kind that must be shown as an escape.
var hostile = []struct{ text, shown string }{
	{"a\nb", `a\nb`}, {"a\r\nb", `a\r\nb`}, {"a\tb", `a\tb`}, {"\x00", `\x00`}, {"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`}, {"\x7f", `\x7f`},
	{"\u0085", `\u0085`}, {"\u009b31m", `\u009b31m`}, // C1: the next line, and CSI
	{"\u2028", `\u2028`}, {"\u2029", `\u2029`},
	{"\u202egnp.exe", `\u202egnp.exe`}, {"\u2066x\u2069", `\u2066x\u2069`}, {"\u061c", `\u061c`}, // order of writing
	{"\u200b", `\u200b`}, {"\u200d", `\u200d`}, {"\u2060", `\u2060`}, {"\ufeff", `\ufeff`}, {"\u00ad", `\u00ad`}, {"\ufe0f", `\ufe0f`}, {"\u3164", `\u3164`},
	{"\U000e0041", `\U000e0041`}, {"\U000e0100", `\U000e0100`}, // tags, and a variation selector
	{"\xff", `\xff`}, {"a\xc3", `a\xc3`}, {"\xed\xa0\x80", `\xed\xa0\x80`}, {"\xc0\x80", `\xc0\x80`}, {"\xf4\x90\x80\x80", `\xf4\x90\x80\x80`},
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, row := range append(hostile, []struct{ text, shown string }{
		{"", ""}, {"echo.EchoServer", "echo.EchoServer"}, {`C:\n "x" <b>`, `C:\n "x" <b>`}, {"Größe 検査 \ufffd 👍 é e\u0301", "Größe 検査 \ufffd 👍 é e\u0301"},
	}...) {
		if got := Text(row.text); got != row.shown || Text(got) != got {
			t.Errorf("%q: %q, want %q; again %q", row.text, got, row.shown, Text(got))
		}
	}
}

func TestTextIsBounded(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"x", "é", "検", "👍", "\n", "\xff", "\u202e", "\U000e0041"} {
		for _, n := range []int{1, 85, 102, 103, 200, 256, 341, 342, 511, 512, 513, 1024, 1025, 15 << 20} {
			text := strings.Repeat(unit, min(n, (15<<20)/len(unit)))
			got := Text(text)
			whole := len(text) <= Most/10
			if len(got) > Most || !utf8.ValidString(got) || whole != (whole && !strings.HasSuffix(got, mark)) || Text(got) != got {
				t.Errorf("%d of %q: %d bytes, %q", n, unit, len(got), got[max(0, len(got)-40):])
			}
			if len(text) > Most && !strings.HasSuffix(got, mark) {
				t.Errorf("%d of %q: nothing says that it was cut: %q", n, unit, got[max(0, len(got)-40):])
			}
		}
	}
	if got := Text(strings.Repeat("x", Most)); strings.Contains(got, mark) {
		t.Errorf("a text of %d bytes was cut", Most)
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	const text = "status: \x1b[2J\u202e\nnext line\r\n"
	if n, err := Writer(&b).Write([]byte(text)); n != len(text) || err != nil || b.String() != "status: \\x1b[2J\\u202e\nnext line\\r\n" {
		t.Errorf("%q, %d, %v", b.String(), n, err)
	}
	if _, err := Writer(broken{}).Write([]byte("a\r")); err == nil {
		t.Error("an error of the writer got lost")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

// active characters, by unicode's own tables.
func activeIn(text string) string {
	for _, r := range text {
		if r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return string(r)
		}
	}
	return ""
}

// eachHandler logs with both of slog's handlers, and returns the lines.
func eachHandler(t *testing.T, redact func(string) string, log func(*slog.Logger)) (text, inJSON string) {
	t.Helper()
	var a, b bytes.Buffer
	all := &slog.HandlerOptions{Level: slog.LevelDebug}
	log(Logger(slog.New(slog.NewTextHandler(&a, all)), redact))
	log(Logger(slog.New(slog.NewJSONHandler(&b, all)), redact))
	for line := range strings.Lines(b.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %.300q", line)
		}
	}
	return a.String(), b.String()
}

type named string

func (n named) String() string { return string(n) }

func TestLogIsInert(t *testing.T) {
	t.Parallel()
	for _, row := range hostile {
		text, inJSON := eachHandler(t, nil, func(l *slog.Logger) {
			l.With("with", row.text).WithGroup(row.text).Info(row.text, "string", row.text, "error", errors.New(row.text), "list", []string{row.text, row.text},
				slog.Group("group", "in", row.text), "named", named(row.text), "any", struct{ A string }{row.text}, row.text, "key")
		})
		text = strings.TrimSuffix(text, "\n")
		if found := activeIn(text); found != "" {
			t.Errorf("%q: %q in %q", row.text, found, text)
		}
		var line any
		if err := json.Unmarshal([]byte(inJSON), &line); err != nil {
			t.Fatal(err)
		}
		walk(line, func(s string) {
			if found := activeIn(s); found != "" {
				t.Errorf("%q: %q in the JSON's %q", row.text, found, s)
			}
		})
	}
}

func walk(value any, f func(string)) {
	switch v := value.(type) {
	case string:
		f(v)
	case []any:
		for _, e := range v {
			walk(e, f)
		}
	case map[string]any:
		for k, e := range v {
			f(k)
			walk(e, f)
		}
	}
}

func TestLineIsBounded(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"x", `"`, `\`, "\n", "検", "\ue000", "\u00a0", "\U0010fffd", "\xff"} {
		long := strings.Repeat(unit, 1<<20)
		many := make([]string, 10000)
		for i := range many {
			many[i] = strings.Repeat(unit, 2000)
		}
		text, inJSON := eachHandler(t, nil, func(l *slog.Logger) {
			l.With("server", long).Warn(long, "stack", long, "attempts", many, "more", many, "a", long, "b", long, "c", long, "cause", errors.New(long))
			l.Warn(long, "attempts", many)
		})
		for _, log := range []string{text, inJSON} {
			if strings.Count(log, "\n") != 2 {
				t.Errorf("%q: %d lines", unit, strings.Count(log, "\n"))
			}
			for line := range strings.Lines(log) {
				if len(line) > mostOfLine || len(line) < mostOfLine/6 {
					t.Errorf("%q: a line of %d bytes", unit, len(line))
				}
			}
		}
	}
}

func TestStackKeepsItsLines(t *testing.T) {
	t.Parallel()
	stack := "goroutine 1 [running]:\n" + strings.Repeat("main.main()\n", 300)
	_, inJSON := eachHandler(t, nil, func(l *slog.Logger) { l.Error("panic", "stack", stack) })
	if !strings.Contains(inJSON, `running]:\nmain.main()\nmain`) || len(inJSON) < len(stack) {
		t.Errorf("%.200s", inJSON)
	}
}

// A secret is taken out before the text is cut, so that no part of it is left; and where a later logger knows the secrets, its
// lines have none.
func TestLogIsRedacted(t *testing.T) {
	t.Parallel()
	const secret = "s3cret\nof the upstream"
	redact := func(text string) string { return strings.ReplaceAll(text, secret, "(redacted)") }
	for before := Most - 2*len(secret); before <= Most; before++ {
		text, _ := eachHandler(t, nil, func(l *slog.Logger) {
			Logger(l, redact).Info("m "+secret, "cause", strings.Repeat("x", before)+secret+strings.Repeat("y", Most), secret, []string{secret}, "with", errors.New(secret))
		})
		if strings.Contains(text, "s3c") || !strings.Contains(text, "m (redacted)") {
			t.Fatalf("%d bytes before the secret: %s", before, text)
		}
	}
}

// A header's value can be a word that is a key: filters look for keys.
func TestKeysStayAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"upstream", "health_status", "attempts"} {
		redact := func(text string) string { return strings.ReplaceAll(text, secret, "(redacted)") }
		text, inJSON := eachHandler(t, redact, func(l *slog.Logger) { l.Info("m", secret, "the "+secret) })
		if !strings.Contains(text, secret+`="the (redacted)"`) || !strings.Contains(inJSON, `"`+secret+`":"the (redacted)"`) {
			t.Errorf("%s%s", text, inJSON)
		}
	}
}

func TestDurationsAreSeconds(t *testing.T) {
	t.Parallel()
	text, inJSON := eachHandler(t, nil, func(l *slog.Logger) {
		l.With("with", 2*time.Second).Info("m", "took", 1500*time.Millisecond, slog.Group("group", slog.Duration("in", time.Minute)))
	})
	if !strings.Contains(text, " with=2 took=1.5 group.in=60\n") || !strings.Contains(inJSON, `"with":2,"took":1.5,"group":{"in":60}`) {
		t.Errorf("%s%s", text, inJSON)
	}
}

func TestRequestIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", Most)
	text, inJSON := eachHandler(t, nil, func(l *slog.Logger) {
		ctx, lost := WithBudget(t.Context()), false
		if !HasRoom(ctx) || !HasRoom(t.Context()) {
			t.Error("there is no room at the beginning, or without a budget")
		}
		for range 1000 {
			if HasRoom(ctx) && lost {
				t.Error("there was room again")
			}
			lost = lost || !HasRoom(ctx)
			l.With("server", long).WarnContext(ctx, long, "attempts", []string{long, long, long, long, long, long})
		}
		if !lost {
			t.Error("there is always room")
		}
	})
	for _, log := range []string{text, inJSON} {
		if len(log) > mostOfRequest || len(log) < mostOfRequest/2 || strings.Count(log, "is not logged") != 1 {
			t.Errorf("%d bytes, of which %d say that there is more", len(log), strings.Count(log, "is not logged"))
		}
	}
	other, _ := eachHandler(t, nil, func(l *slog.Logger) {
		for range 100 {
			l.WarnContext(WithBudget(t.Context()), long)
		}
	})
	if strings.Count(other, "\n") != 100 {
		t.Errorf("%d lines of 100 requests", strings.Count(other, "\n"))
	}
}
