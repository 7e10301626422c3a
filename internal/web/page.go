package web

import (
	"bytes"
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

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

//go:embed page.html
var pageSource string

// statusPage makes the page.
type statusPage struct {
	template *template.Template
	words    words
	// policy lets the page's own style and script in, and nothing else.
	policy []string
	// size is what a page takes that says little, in bytes.
	size int
}

// loadPage parses the page at its first use: a cold start does not wait for it.
var loadPage = sync.OnceValue(func() statusPage {
	p := statusPage{template: template.Must(template.New("page").Parse(pageSource)), words: newWords()}
	// The hashes are of what is sent: html/template drops the comments of scripts.
	sent := string(p.render(pageData{}))
	p.size = len(sent) + 1<<10
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
	body.Grow(p.sizeOf(&data)) // a buffer that grows takes three times as much
	if err := p.template.Execute(&body, data); err != nil {
		panic(err) // the template is fixed, and a buffer takes everything
	}
	return body.Bytes()
}

// sizeOf is what a page takes at most, in bytes.
func (p statusPage) sizeOf(d *pageData) int {
	size := p.size + len(d.Rows) + len(d.Folded) + 170*len(d.Past) + len(d.Evidence)
	for _, text := range append([]string{d.TextLink, d.JSONLink, d.Subject, d.Subject, d.Meaning, d.PageTitle, d.Group}, append(slices.Clone(d.Causes), d.Addresses...)...) {
		size += len(text) + len("<br><bdi></bdi>")
		for i := range len(text) {
			if strings.IndexByte(`&<>"'+`, text[i]) >= 0 {
				size += len("&#34;") - 1
			}
		}
	}
	return size
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
	NoGroup     string    `json:"noGroup"`
	None        string    `json:"none"`
	Many        int       `json:"many"`      // rows, from which the page is compact
	Most        int       `json:"most"`      // rows of a page
	Explained   int       `json:"explained"` // rows, up to which there is a sentence about the worst
	Targets     int       `json:"targets"`   // of a group, up to which there is a page of it
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
		NoGroup:     noGroup,
		None:        noServices,
		Many:        manyRows,
		Most:        maxRows,
		Explained:   maxExplained,
		Targets:     asker.MaxTargets,
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
	PageTitle          string // PAGE_TITLE
	Narrowed           bool   // the page is not about all that is configured
	Group              string // the page is about this group's targets, and no others
	Meaning            string
	Since              time.Time // of the only service; else zero
	Latest             string    // how old a summary is; empty where the answer is none
	Targets            bool      // rows have a target
	Plain              bool      // and each is about a whole server
	Many               bool      // the page is compact, with Folded apart
	Strips             bool      // rows have a history
	Rows, Folded       template.HTML
	Unfolded           bool // there are Rows
	Fold               string
	Beyond             int           // rows that are not there
	NoRow              template.HTML // what the script makes rows of
	Past               []pagePast    // what the page would have shown
	PastLabel          string
	Certificate        pageCertificate
	Evidence           string
	Causes             []string // where callers may see them
	Addresses          []string // of the only service, where callers may see them
	TextLink, JSONLink string
	Words              words
}

// pagePast is a bar of the page's strip.
type pagePast struct {
	At           time.Time
	Status       health.Status
	Tone         string
	X, Y, Height int
}

// barHeights are those of the page's strip, on 48.
var barHeights = map[string]int{"good": 48, "unsure": 34, "bad": 24}

// pageCertificate says how long the upstream's certificate is valid.
type pageCertificate struct {
	Text string
	Tone string    // "over", "soon" or none
	Ends time.Time // zero where none was seen
	Of   string    // the target, where there are several
}

// shown is what a page shows beside the verdicts.
type shown struct {
	tally       tally
	title       string // PAGE_TITLE
	certificate pageCertificate
	kept        kept
	now         time.Time
	showCause   bool // callers may see causes
}

// newPage describes an answer to q, which has been cut, as it is now.
func newPage(q query, worst health.Status, found asker.Answer, s shown) pageData {
	d := pageData{
		wording:     wordingOf(worst),
		Certificate: s.certificate,
		Targets:     found.Fleet.Named(),
		Plain:       true,
		Many:        len(found.Verdicts) >= manyRows,
		Strips:      s.kept.strips != nil,
		TextLink:    q.link(formatText),
		JSONLink:    q.link(formatJSON),
		PageTitle:   s.title,
		Narrowed:    q.narrowed(),
	}
	if len(q.Groups) == 1 && len(q.Targets) == 0 {
		d.Group = q.Groups[0]
	}
	if !d.Many { // else each row has its own
		d.Evidence = strings.Join(health.EvidenceIDs(found.Verdicts), ", ")
		if s.showCause {
			d.Causes = causes(found.Verdicts)
			if len(found.Verdicts) == 1 && found.Verdicts[0].Addresses != nil {
				d.Addresses = found.Verdicts[0].Addresses.Lines()
			}
		}
	}
	rows := make([]pageRow, 0, len(found.Verdicts))
	for i, v := range found.Verdicts {
		strip := ""
		if d.Strips {
			strip = s.kept.strips[i]
		}
		d.Plain = d.Plain && v.Service == ""
		rows = append(rows, newRow(v, found.Fleet.Find(v.Target), strip))
	}
	shape := rowShape{targets: d.Targets, links: len(rows) > 1, compact: d.Many}
	d.tell(q, rows, s)
	folded := len(rows)
	for d.Many && folded > 0 && rows[folded-1].Status == health.Serving {
		folded--
	}
	d.Unfolded, d.Fold, d.Beyond = folded > 0 || !d.Many, fmt.Sprintf("%d serving", len(rows)-folded), s.tally.beyond
	if s.tally.groups {
		shape.headings = newHeadings(rows)
		shape.headings.part = d.Beyond > 0
		shape.headings.links = !d.Narrowed && d.Beyond == 0
	}
	d.Rows = rowsHTML(rows[:folded], shape)
	shape.headings.serving = true
	d.Folded = rowsHTML(rows[folded:], shape)
	shape.headings = headings{}
	shape.links = true
	d.NoRow = rowsHTML([]pageRow{{link: "?"}}, shape)
	d.remember(s.kept.all)
	if found.Summary {
		d.Latest = latest(found.Verdicts, s.now)
	}
	return d
}

// remember draws the page's strip as the script does.
func (d *pageData) remember(all []past) {
	serving := 0
	for i, p := range all {
		tone := wordingOf(p.status).Tone
		height := barHeights[tone]
		d.Past = append(d.Past, pagePast{At: p.at.UTC(), Status: p.status, Tone: tone, X: 10 * (bars - len(all) + i), Y: 48 - height, Height: height})
		if p.status == health.Serving {
			serving++
		}
	}
	if len(all) > 0 {
		d.PastLabel = fmt.Sprintf("Last checks: %d of %d serving", serving, len(all))
	}
}

// tell says in words what the rows, sorted, are about.
func (d *pageData) tell(q query, rows []pageRow, s shown) {
	n := s.tally
	several := d.Targets && n.targets > 1
	switch {
	case len(rows) == 0:
		d.Subject, d.Meaning = "No services", noServices
	case len(rows) == 1:
		d.Subject, d.Since = rows[0].Name, rows[0].Since
		if d.Targets {
			d.Subject = rows[0].Target
			if rows[0].Service != "" {
				d.Subject += " · " + rows[0].Service
			}
		}
		d.Meaning = rows[0].Sentence(s.now)
	default:
		d.Subject = fmt.Sprintf("%d services", n.rows)
		d.Meaning = fmt.Sprintf("%d of %d services are serving.", n.serving, n.rows)
		switch {
		case several && n.targets == n.rows:
			d.Subject = fmt.Sprintf("%d targets", n.targets)
			d.Meaning = fmt.Sprintf("%d of %d targets are serving.", n.serving, n.rows)
		case several:
			d.Subject = fmt.Sprintf("%d targets", n.targets)
			d.Meaning = fmt.Sprintf("%d of %d services of %d targets are serving.", n.serving, n.rows, n.targets)
		case d.Targets:
			d.Subject = rows[0].Target + " · " + d.Subject
		}
		if n.leftOut > 0 {
			d.Meaning += fmt.Sprintf(" The server lists %d more, none of them worse.", n.leftOut)
		}
		if rows[0].Phase != health.PhaseNone && len(rows) <= maxExplained { // the server did not say so itself
			d.Meaning += " "
			if several {
				d.Meaning += rows[0].Target + ": "
			}
			d.Meaning += rows[0].Sentence(s.now)
		}
	}
	if several && d.Group != "" {
		d.Subject = d.Group + " · " + d.Subject
	}
	switch {
	case s.title != "" && q.narrowed():
		d.Subject = s.title + " – " + d.Subject
	case s.title != "":
		d.Subject = s.title
	}
	d.Title = d.Word + " – " + d.Subject
}

// latest says how old the verdicts of a summary are.
func latest(verdicts []health.Verdict, now time.Time) string {
	oldest := now
	for i := range verdicts {
		if at := verdicts[i].At; !at.IsZero() && at.Before(oldest) {
			oldest = at
		}
	}
	age := now.Sub(oldest)
	text := health.WholeUnits(age)
	if age < 2*time.Minute {
		text = fmt.Sprintf("%d s", int(age.Seconds()))
	}
	return "Latest checks, the oldest " + text + " ago"
}

// certificateOf describes the certificate of what an answer to q is about; of several, the one that ends first.
func certificateOf(q query, found asker.Answer, now time.Time) pageCertificate {
	targets := make(map[string]bool)
	for i := range found.Verdicts {
		targets[found.Verdicts[i].Target] = true
	}
	if len(found.Verdicts) == 0 { // the answer to a List may have none
		for _, name := range q.Targets {
			targets[name] = true
		}
	}
	var ends time.Time
	of := ""
	for _, u := range found.Fleet.Upstreams() {
		if u.CertificateEnds == nil || found.Fleet.Named() && !targets[u.Name] {
			continue
		}
		if e := u.CertificateEnds(); !e.IsZero() && (ends.IsZero() || e.Before(ends)) {
			ends, of = e, u.Name
		}
	}
	c := newPageCertificate(ends, now)
	if len(targets) > 1 {
		c.Of = of
	}
	return c
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
