package redact

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

func knowing(secrets ...string) *Secrets {
	s := new(Secrets)
	for i, secret := range secrets {
		s.Set(strconv.Itoa(i), secret)
	}
	return s
}

func TestWholeSecretsOnce(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		secrets    []string
		text, want string
	}{
		{nil, "nothing", "nothing"},
		{[]string{"s3cret"}, "a s3cret, s3crets3cret", "a (redacted), (redacted)(redacted)"},
		{[]string{"short", "ab", ""}, "short ab", "short ab"},
		{[]string{"päßwör"}, "päßwör", "(redacted)"}, {[]string{"äöüäö"}, "äöüäö", "äöüäö"}, // characters, not bytes
		// One in another, at its beginning, in its middle, at its end.
		{[]string{"secret", "secret-and-more"}, "secret-and-more secret", "(redacted) (redacted)"},
		{[]string{"middle", "the-middle-of-it"}, "the-middle-of-it, middle", "(redacted), (redacted)"},
		{[]string{"at-end", "look-at-end"}, "look-at-end at-end", "(redacted) (redacted)"},
		// Overlapping: longest first would leave a rest, the first from the left too.
		{[]string{"abcdef", "defghijk"}, "xabcdefghijkx", "x(redacted)x"},
		{[]string{"abcdefgh", "ghijkl"}, "xabcdefghijklx", "x(redacted)x"},
		{[]string{"aaaaaa"}, "aaaaaaaaaaaaaaa b", "(redacted) b"},
		{[]string{"ababab"}, "xabababababx", "x(redacted)x"},
		// The mark is no text to look in, and neither is a replacement.
		{[]string{"redacted", "s3cret"}, "s3cret (redacted) redacted", "(redacted) (redacted) (redacted)"},
		{[]string{"(redacted)"}, "(redacted)", "(redacted)"},
		// What was cut by somebody else.
		{[]string{"s3cret-t0ken"}, "bad s3cr… (cut)", "bad (redacted)… (cut)"},
		{[]string{"s3cret-t0ken"}, `bad "s3cre…": is it`, `bad "(redacted)…": is it`},
		{[]string{"s3cret-t0ken"}, `bad s3cret-t0...`, `bad (redacted)...`},
		{[]string{"s3cret-t0ken"}, `data: "bad s3cret-t0"`, `data: "bad (redacted)"`},
		{[]string{"s3cret-t0ken"}, "bad s3cret-t", "bad (redacted)"},
		{[]string{"Bearer s3cret"}, `missing "Bearer"`, `missing "Bearer"`},
	} {
		orders := [][]string{row.secrets, slices.Clone(row.secrets)}
		slices.Reverse(orders[1])
		for _, order := range orders {
			s := knowing(order...)
			if got := s.Text(row.text); got != row.want || s.Text(got) != got {
				t.Errorf("%q in %q: %q, want %q; again %q", order, row.text, got, row.want, s.Text(got))
			}
		}
	}
	if got := (*Secrets)(nil).Text("as it is"); got != "as it is" {
		t.Errorf("without secrets: %q", got)
	}
	(*Secrets)(nil).Set("x", "secret")
}

// A header's value can be a word of a name that everybody knows.
func TestPublicNames(t *testing.T) {
	t.Parallel()
	s := knowing("production", "checkout", "db.production.svc:443-and-more")
	s.Public("db.production.svc:443", "checkout.v1.Checkout", "", "x")
	for text, want := range map[string]string{
		"checkout.v1.Checkout": "checkout.v1.Checkout",
		"no connection to db.production.svc:443: production is wrong": "no connection to db.production.svc:443: (redacted) is wrong",
		"db.production.svc:443-and-more":                              "(redacted)",
		"checkout of db.production.svc, too":                          "(redacted) of db.(redacted).svc, too",
		"checkout.v1.Checkoutcheckout":                                "checkout.v1.Checkout(redacted)",
	} {
		if got := s.Text(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	(*Secrets)(nil).Public("checkout")
}

func BenchmarkText(b *testing.B) {
	s := new(Secrets)
	s.Set("authorization", Header("authorization", "Bearer "+strings.Repeat("eyJhbGciOi", 100))...)
	s.Set("x-key", Header("x-key", "a-key-of-ours")...)
	for name, text := range map[string]string{"usual": "rpc error: code = Unavailable desc = no healthy upstream", "SERVING": "SERVING", "long": strings.Repeat("eyJhbGciOi", most/10)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Text(text)
			}
		})
	}
}

// odd are secrets with what is written in more than one way.
var odd = []string{
	"s3cret", `s3c"ret\with`, "s3cret<&>x", "s3c/ret+ab=", "pa ss:wo@rd%41", "päss\u202ewörd", "line\nbreak\ttab", "\x00\x01\xff\xfebinary", "s3cret\n", "ends in \xc3",
	"c2VjcmV0+dG9rZW4=", "it's `so` & so", "smile \U0001f600 s3cret",
}

// escaper escapes what is not printable ASCII, and these characters, UTF-16 unit by unit or byte by byte.
func escaper(format, characters string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		bytes := !strings.Contains(format, "u") && !strings.Contains(format, "&")
		for i, r := range s {
			_, size := utf8.DecodeRuneInString(s[i:])
			switch {
			case ' ' <= r && r <= '~' && !strings.ContainsRune(characters, r):
				b.WriteRune(r)
			case bytes:
				for _, c := range []byte(s[i : i+size]) {
					fmt.Fprintf(&b, format, c)
				}
			case strings.Contains(format, "u"):
				for _, unit := range utf16.Encode([]rune{r}) {
					fmt.Fprintf(&b, format, unit)
				}
			default:
				fmt.Fprintf(&b, format, r)
			}
		}
		return b.String()
	}
}

// inC is how C, and the text form of protocol buffers, write bytes.
func inC(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case strings.IndexByte(`"'\`, c) >= 0:
			b.WriteString(`\` + string(rune(c)))
		case ' ' <= c && c <= '~':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

func TestForms(t *testing.T) {
	t.Parallel()
	marshal := func(v string) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	forms := map[string]func(string) string{
		"as it is":         func(s string) string { return s },
		"trimmed":          strings.TrimSpace,
		"%q":               strconv.Quote,
		"%+q":              strconv.QuoteToASCII,
		"%q of %q":         func(s string) string { return strconv.Quote(strconv.Quote(s)) },
		"JSON":             marshal,
		"JSON in %q":       func(s string) string { return strconv.Quote(marshal(s)) },
		"JSON in JSON":     func(s string) string { return marshal(marshal(s)) },
		"JSON of PHP":      func(s string) string { return strings.ReplaceAll(marshal(s), "/", `\/`) },
		"JSON of Gson":     escaper(`\u%04x`, `"\<>&='`),
		"JSON of .NET":     escaper(`\u%04X`, `"\<>&'+`+"`"),
		"JSON of Python":   escaper(`\u%04x`, ``),
		"repr of Python":   escaper(`\x%02x`, `'\`),
		"C":                func(s string) string { return inC(s) },
		"HTML":             html.EscapeString,
		"HTML, named":      func(s string) string { return strings.ReplaceAll(html.EscapeString(s), "&#34;", "&quot;") },
		"XML":              escaper("&#x%X;", `<>&"'`),
		"HTML in JSON":     func(s string) string { return marshal(html.EscapeString(s)) },
		"a URL in HTML":    func(s string) string { return html.EscapeString(url.QueryEscape(s)) },
		"a URL, twice":     func(s string) string { return url.QueryEscape(url.QueryEscape(s)) },
		"base64":           func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64 unpadded":  func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) },
		"base64url":        func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
		"base64url raw":    func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
		"base64 in a URL":  func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(s))) },
		"a query":          url.QueryEscape,
		"a path":           url.PathEscape,
		"user information": func(s string) string { return strings.TrimPrefix(url.UserPassword("", s).String(), ":") },
		"lower escapes":    escaper("%%%02x", `%/:@<>&"\+= `),
		"valid UTF-8":      func(s string) string { return strings.ToValidUTF8(s, "\ufffd") },
		"each byte":        func(s string) string { return string([]rune(s)) },
		"a list":           func(s string) string { return fmt.Sprint([]string{s}) },
	}
	for name, form := range forms {
		for _, secret := range odd {
			text := "before " + form(secret) + " behind"
			got := knowing(secret).Text(text)
			rest := strings.Trim(strings.NewReplacer("before ", "", " behind", "", Mark, "").Replace(got), `"\[] `+"\n")
			if !strings.Contains(got, Mark) || !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " behind") || rest != "" && rest != "n" {
				t.Errorf("%s of %q: %q", name, secret, got)
			}
		}
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	basic := func(pair string) string { return base64.StdEncoding.EncodeToString([]byte(pair)) }
	for _, row := range []struct{ name, value, text, want string }{
		{"authorization", "Bearer t0ken-1", `bad "Bearer t0ken-1", t0ken-1`, `bad "(redacted)", (redacted)`},
		{"authorization", "bearer  t0ken-1 ", "t0ken-1", "(redacted)"},
		{"proxy-authorization", "Custom a b c-t0ken", "c-t0ken; a b c-t0ken", "(redacted); (redacted)"},
		{"authorization", "Basic " + basic("user:passw0rd"), "user:passw0rd; passw0rd; " + basic("user:passw0rd") + "; user", "(redacted); (redacted); (redacted); user"},
		{"authorization", "Basic " + base64.RawURLEncoding.EncodeToString([]byte("üser:pa>?ss:x")), "pa>?ss:x", "(redacted)"},
		{"authorization", "Basic " + basic("user:passw0rd"), `{"p":"` + basic("passw0rd") + `"}`, `{"p":"(redacted)"}`},
		{"authorization", "Basic " + basic("u:p"), "u:p p", "u:p p"},
		{"x-key", "t0ken-1", "t0ken-1", "(redacted)"},
		{"x-key", "Token t0ken-1", "t0ken-1", "(redacted)"},
		{"x-text", "a health check", "this health check is a health check", "this health check is (redacted)"},
		{"cookie", "session=abcdefgh; lang=en", "abcdefgh en", "(redacted) en"},
		{"x-data-bin", "\x00\x01binary", base64.RawStdEncoding.EncodeToString([]byte("\x00\x01binary")), "(redacted)"},
	} {
		s := new(Secrets)
		s.Set("header", Header(row.name, row.value)...)
		if got := s.Text(row.text); got != row.want {
			t.Errorf("%s %q in %q: %q, want %q", row.name, row.value, row.text, got, row.want)
		}
	}
}

func TestUserinfo(t *testing.T) {
	t.Parallel()
	for _, info := range []string{"prober:passw0rd", "prober:pa%24sw0rd%2F", "prober:p%zzassw0rd", "prober:", ":passw0rd"} {
		s := new(Secrets)
		s.Set("HTTPS_PROXY", Userinfo(info)...)
		user, password, _ := strings.Cut(info, ":")
		texts := []string{"http://" + info + "@proxy:1", user, password, base64.StdEncoding.EncodeToString([]byte(info))}
		if u, err := url.Parse("http://" + info + "@proxy:1"); err == nil {
			decoded, _ := u.User.Password()
			texts = append(texts, decoded, u.User.String(), base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+decoded)))
		}
		for _, text := range texts {
			if got := s.Text(text); len(text) >= Least && (!strings.Contains(got, Mark) || strings.Contains(got, "sw0rd") || strings.Contains(got, "prober")) {
				t.Errorf("%s in %q: %q", info, text, got)
			}
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	s := new(Secrets)
	for i := range 100 {
		s.Set("token", fmt.Sprintf("t0ken-%03d", i))
		s.Set("other", "the other one")
		if got := s.Text(fmt.Sprintf("t0ken-%03d t0ken-%03d the other one", max(0, i-1), i)); got != "(redacted) (redacted) (redacted)" {
			t.Fatalf("after %d: %q", i, got)
		}
	}
	if n := len(*s.forms.Load()); n > generations*100 {
		t.Errorf("%d forms are known after 100 rotations", n)
	}
	// One that comes again is the latest again.
	s.Set("token", "t0ken-090")
	for i := range generations - 1 {
		s.Set("token", fmt.Sprintf("another-%03d", i))
	}
	if got := s.Text("t0ken-090"); got != Mark {
		t.Errorf("the one that came again: %q", got)
	}
}

// However long a text is, no part of a secret is left where it is cut.
func TestLongText(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-t0ken-of-the-upstream"
	s := knowing(secret, "another")
	for before := most - len(secret) - 3; before < most+3; before++ {
		got := s.Text(strings.Repeat("x", before) + secret + strings.Repeat("y", most))
		if strings.Contains(got, "s3c") || strings.Contains(got, "ream") || len(got) > most+len(Mark)+3 {
			t.Fatalf("%d before: %q", before, got[most-40:])
		}
	}
	if got := s.Text(strings.Repeat(secret, (15<<20)/len(secret))); strings.ReplaceAll(got, Mark, "") != "…" {
		t.Errorf("%.100q", got)
	}
}

// Whatever the secrets are and however they overlap, nothing is left of any, and the order does not matter.
func TestAnySecrets(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[r.IntN(2)]
		}
		return string(b)
	}
	for range 300 {
		secrets := []string{letters(6), letters(7), letters(9), letters(12)}
		text := letters(60)
		got := knowing(secrets...).Text(text)
		for _, secret := range secrets {
			if strings.Contains(got, secret) {
				t.Fatalf("%q in %q: %q", secrets, text, got)
			}
		}
		slices.Reverse(secrets)
		if other := knowing(secrets...).Text(text); other != got {
			t.Fatalf("%q, %q in the other order", got, other)
		}
	}
}

// FuzzText takes secrets out of any text: however it is escaped, no reading of what is left has one.
func FuzzText(f *testing.F) {
	s := knowing(`s3c"r\et`, "c2VjcmV0+dG9rZW4=", "\x00\xffbin", "&amp;%41x")
	for _, text := range []string{
		`"s3c\"r\\et"`, `\"s3c\\\"r\\\\et\"`, `c2VjcmV0\u002bdG9rZW4\u003D`, "c2VjcmV0%2BdG9rZW4%3d", `\000\xffbin`, `\u0000\ufffdbin`, "&amp;amp;%2541x", "&#38;amp;&#x25;41x",
		`\ud83d\ude00\ud83d\`, `\`, `\u`, `\U0010ffff`, "%", "%4", "&", "&#;", "&#x;", "&#99999999999;", "(redacted)", "\xff\\x", strings.Repeat(`s3c\"r`, 4000),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := s.Text(text)
		for _, v := range views(got) {
			for _, form := range *s.forms.Load() {
				if strings.Contains(v.text, form.text) {
					t.Errorf("%q: %q, which reads %q", text, got, v.text)
				}
			}
		}
	})
}

// What is known within a part is known there alone; what the process knows, everywhere.
func TestWithin(t *testing.T) {
	t.Parallel()
	process := new(Secrets)
	process.Set("token", "of-the-process")
	one, other := process.Within(), process.Within()
	one.Set("header", "of-the-first")
	one.Public("the-name-of-the-first")
	other.Public("on-behalf-of-the-process")
	const text = "of-the-process of-the-first of-the-process-and-of-the-first the-name-of-the-first on-behalf-of-the-process"
	for name, test := range map[string]struct {
		secrets *Secrets
		want    string
	}{
		"process": {process, "(redacted) of-the-first (redacted)-and-of-the-first the-name-of-the-first on-behalf-(redacted)"},
		"one":     {one, "(redacted) (redacted) (redacted)-and-(redacted) the-name-of-the-first on-behalf-(redacted)"},
		"other":   {other, "(redacted) of-the-first (redacted)-and-of-the-first the-name-of-the-first on-behalf-of-the-process"},
		"inner":   {one.Within(), "(redacted) (redacted) (redacted)-and-(redacted) the-name-of-the-first on-behalf-(redacted)"},
	} {
		if got := test.secrets.Text(text); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	for i := range 20 {
		s := process.Within()
		s.Set("header", strings.Repeat("v", 8)+string(rune('a'+i)))
		if got := one.Text("of-the-first"); got != Mark {
			t.Fatalf("after %d others: %q", i, got)
		}
	}
}
