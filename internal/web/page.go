package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

//go:embed page.html
var pageSource string

// statusPage makes the page.
type statusPage struct {
	template *template.Template
	words    words
	// policy lets the page's own style and script in, and nothing else.
	policy []string
}

// loadPage parses the page at its first use: a cold start does not wait for it.
var loadPage = sync.OnceValue(func() statusPage {
	p := statusPage{template: template.Must(template.New("page").Parse(pageSource)), words: newWords()}
	// The hashes are of what is sent: html/template drops the comments of scripts.
	sent := string(p.render(pageData{}))
	p.policy = []string{"default-src 'none'; script-src " + hash(sent, "<script>", "</script>") +
		"; style-src " + hash(sent, "<style>", "</style>") +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
	return p
})

// hash is the source expression for what is between two tags
// (https://www.w3.org/TR/CSP3/#grammardef-hash-source).
func hash(page, from, to string) string {
	_, inner, _ := strings.Cut(page, from)
	inner, _, _ = strings.Cut(inner, to)
	sum := sha256.Sum256([]byte(inner))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (p statusPage) render(data pageData) []byte {
	data.Words = p.words
	var body bytes.Buffer
	if err := p.template.Execute(&body, data); err != nil {
		panic(err) // the template is fixed, and a buffer takes everything
	}
	return body.Bytes()
}

// tone is how the page looks. Its colours are in the page's style, but for the tab's icon.
type tone struct {
	Name string       `json:"name"`
	Icon template.URL `json:"icon"` // the tab's
	Path string       `json:"-"`    // the sign in SVG, on 24 by 24
}

func newTone(name, colour, path string) tone {
	icon := `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><rect width="24" height="24" rx="6" fill="` + colour +
		`"/><path d="` + path + `" fill="none" stroke="#fff" stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round"/></svg>`
	return tone{Name: name, Icon: template.URL("data:image/svg+xml," + url.PathEscape(icon)), Path: path}
}

// wording is what the page says of a status.
type wording struct {
	Status   string            `json:"status"`
	Tone     string            `json:"tone"`
	Word     string            `json:"word"`
	Meanings map[string]string `json:"meanings"` // by phase; what is known beyond that comes with the page
}

// wordings translate a status; tone "lost" is for a page that gets no answer.
var wordings = map[health.Status]wording{
	health.Serving:          {Tone: "good", Word: "Serving"},
	health.NotServing:       {Tone: "bad", Word: "Not serving"},
	health.Unknown:          {Tone: "unsure", Word: "Unknown"},
	health.ServiceUnknown:   {Tone: "unsure", Word: "Service unknown"},
	health.Unimplemented:    {Tone: "bad", Word: "Not implemented"},
	health.ConnectionFailed: {Tone: "bad", Word: "Connection failed"},
	health.Timeout:          {Tone: "bad", Word: "Timed out"},
	health.RPCFailed:        {Tone: "bad", Word: "RPC failed"},
	health.Overloaded:       {Tone: "unsure", Word: "Overloaded"},
}

// wordingOf is Unknown's for a status that is none.
func wordingOf(status health.Status) wording {
	if w, known := wordings[status]; known {
		return w
	}
	return wordings[health.Unknown]
}

// lost is for a page without a verdict.
var lost = newTone("lost", "#4a545c", "M6 12h12")

// words are what the page's script speaks with.
type words struct {
	Tones       []tone    `json:"tones"`
	Statuses    []wording `json:"statuses"` // worst first
	WholeServer string    `json:"wholeServer"`
	None        string    `json:"none"`
}

func newWords() words {
	w := words{
		Tones: []tone{
			newTone("good", "#177a55", "M5 12.5l4.6 4.6L19 7.4"),
			newTone("bad", "#bd2730", "M5.6 5.6l12.8 12.8M18.4 5.6L5.6 18.4"),
			newTone("unsure", "#946200", "M8 9a4 4 0 1 1 6.2 3.3c-1.4 1-2.2 1.6-2.2 3.2M12 19.5v.01"),
			lost,
		},
		WholeServer: wholeServer,
		None:        noServices,
	}
	for _, status := range health.Statuses() {
		word := wordings[status]
		word.Status = status.String()
		word.Meanings = map[string]string{"": health.Meaning(status, health.PhaseNone)}
		for _, phase := range health.Phases() {
			if meaning := health.Meaning(status, phase); meaning != word.Meanings[""] {
				word.Meanings[string(phase)] = meaning
			}
		}
		w.Statuses = append(w.Statuses, word)
	}
	return w
}

const (
	wholeServer = "Whole server"
	noServices  = "The server lists no services."
)

// pageData is what the template shows.
type pageData struct {
	wording
	Title              string
	Subject            string
	Meaning            string
	Since              time.Time // of the only service; else zero
	Rows               []pageRow
	NoRow              pageRow // what the script makes rows of
	Certificate        pageCertificate
	Evidence           string
	Causes             []string // where callers may see them
	TextLink, JSONLink string
	Words              words
}

// pageRow is a service. Its times are in UTC.
type pageRow struct {
	health.Verdict
	Name, Tone, Took string
}

// pageCertificate says how long the upstream's certificate is valid.
type pageCertificate struct {
	Text string
	Tone string    // "over", "soon" or none
	Ends time.Time // zero where none was seen
}

// newPage describes an answer to q, the worst services first, as it is now. showCause says that callers may see causes.
func newPage(q query, worst health.Status, verdicts []health.Verdict, certificate pageCertificate, now time.Time, showCause bool) pageData {
	d := pageData{
		wording:     wordingOf(worst),
		Certificate: certificate,
		Evidence:    strings.Join(health.EvidenceIDs(verdicts), ", "),
		TextLink:    q.link(formatText),
		JSONLink:    q.link(formatJSON),
	}
	if showCause {
		d.Causes = causes(verdicts)
	}
	ranks := health.Statuses()
	verdicts = slices.Clone(verdicts)
	slices.SortStableFunc(verdicts, func(a, b health.Verdict) int {
		return cmp.Compare(slices.Index(ranks, a.Status), slices.Index(ranks, b.Status))
	})
	serving, leftOut := 0, 0
	for _, v := range verdicts {
		leftOut += v.LeftOut
		if v.Status == health.Serving {
			serving++
		}
		v.Service = inert.Text(v.Service)
		v.At, v.Since = v.At.UTC(), v.Since.UTC()
		d.Rows = append(d.Rows, pageRow{
			Verdict: v,
			Name:    cmp.Or(v.Service, wholeServer),
			Tone:    wordingOf(v.Status).Tone,
			Took:    fmt.Sprintf("%.1f ms", v.Duration.Seconds()*1000),
		})
	}
	switch len(d.Rows) {
	case 0:
		d.Subject, d.Meaning = "No services", noServices
	case 1:
		d.Subject, d.Since = d.Rows[0].Name, d.Rows[0].Since
		d.Meaning = verdicts[0].Sentence(now)
	default:
		d.Subject = fmt.Sprintf("%d services", len(d.Rows))
		d.Meaning = fmt.Sprintf("%d of %d services are serving.", serving, len(d.Rows))
		if leftOut > 0 {
			d.Meaning += fmt.Sprintf(" The server lists %d more, none of them worse.", leftOut)
		}
		if verdicts[0].Phase != health.PhaseNone { // the server did not say so itself
			d.Meaning += " " + verdicts[0].Sentence(now)
		}
	}
	d.Title = d.Word + " – " + d.Subject
	return d
}

func newPageCertificate(ends, now time.Time) pageCertificate {
	if ends.IsZero() {
		return pageCertificate{Text: "none seen"}
	}
	left := ends.Sub(now)
	c := pageCertificate{Ends: ends.UTC(), Text: health.WholeUnits(left.Abs()) + " left"}
	switch {
	case left <= 0:
		c.Text, c.Tone = "expired "+health.WholeUnits(-left)+" ago", "over"
	case left < endsSoon:
		c.Tone = "soon"
	}
	return c
}

// endsSoon is the time before a certificate's end from which it is shown in amber.
const endsSoon = 14 * 24 * time.Hour
