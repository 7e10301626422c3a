package web

import (
	"bytes"
	_ "embed" // the page
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

//go:embed refusal.html
var refusalSource string

// refusalPage is what a browser gets instead of a verdict.
type refusalPage struct {
	template *template.Template
	icon     template.URL
	policy   []string // lets the page's own style in, and nothing else
}

// loadRefusal parses the page at its first use.
var loadRefusal = sync.OnceValue(func() refusalPage {
	p := refusalPage{template: template.Must(template.New("refusal").Parse(refusalSource)), icon: lost.Icon}
	p.policy = []string{"default-src 'none'; style-src " + hash(string(p.render(refusalData{})), "<style>", "</style>") +
		"; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
	return p
})

func (p refusalPage) render(data refusalData) []byte {
	data.Icon = p.icon
	var body bytes.Buffer
	if err := p.template.Execute(&body, data); err != nil {
		panic(err) // the template is fixed, and a buffer takes everything
	}
	return body.Bytes()
}

// refusalData is what the template shows.
type refusalData struct {
	Word, Reason string
	Icon         template.URL
	Asks         []hint
}

// hint is something that can be asked.
type hint struct {
	Link          string // empty where there is something to fill in
	Name, Meaning string
}

// refuse answers with a reason, in text, and to browsers as a page.
func refuse(w http.ResponseWriter, r *http.Request, code int, reason string) {
	refuseWith(w, r, code, reason, nil)
}

func refuseWith(w http.ResponseWriter, r *http.Request, code int, reason string, hints []hint) {
	if negotiate(r.Header["Accept"]) != formatHTML {
		send(w, r, code, contentText, page{body: []byte(reason + "\n")})
		return
	}
	sentence := strings.ToUpper(reason[:1]) + reason[1:] + "."
	if reason == notFound {
		sentence = "There is nothing at this path."
	}
	p := loadRefusal()
	w.Header()["Content-Security-Policy"] = p.policy
	send(w, r, code, contentHTML, page{body: p.render(refusalData{Word: http.StatusText(code), Reason: sentence, Asks: hints})})
}

// maxAsked is how many services a page of a refusal names.
const maxAsked = 20

// refuse also tells browsers what can be asked. The services' names are for callers who have been let in.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, code int, reason string, letIn bool) {
	at := "" // relative to the path that was asked for: something in front may have taken off a part
	if !h.answers(r.URL.Path) {
		if at = h.path; at == "" {
			at = "/"
		}
	}
	show := func(values url.Values) string { return at + "?" + values.Encode() }
	hints := []hint{{Link: at, Name: at, Meaning: "the health of all that is configured"}}
	if at == "" {
		hints[0].Link, hints[0].Name = "?", "no query"
	}
	var services []string
	fleet := h.asker.Fleet(r.Context())
	if fleet != nil {
		services = fleet.Configured()
	}
	if letIn && len(services) > 1 && len(services) <= maxAsked {
		for _, s := range slices.Compact(services) {
			hints = append(hints, hint{Link: show(url.Values{"service": {s}}), Name: "?service=" + s, Meaning: "the health of this service"})
		}
	} else {
		meaning := "the health of a service that is configured; repeatable"
		if len(services) == 0 {
			meaning = "the health of a service of the server; repeatable"
		}
		hints = append(hints, hint{Name: "?service=NAME", Meaning: meaning})
	}
	if fleet != nil && fleet.Named() {
		hints = append(hints, hint{Name: "?target=NAME", Meaning: "the health of a target; repeatable"}, hint{Name: "?group=NAME", Meaning: "the health of the targets of a group; repeatable"})
	}
	if fleet != nil && fleet.Lists() {
		hints = append(hints, hint{Link: show(url.Values{"list": {""}}), Name: "?list", Meaning: "the health of all services of the server"})
	}
	for _, f := range []format{formatText, formatJSON, formatHTML} {
		hints = append(hints, hint{Link: show(url.Values{"format": {string(f)}}), Name: "?format=" + string(f), Meaning: "the answer " + map[format]string{
			formatText: "as text", formatJSON: "as JSON", formatHTML: "as a page",
		}[f]})
	}
	refuseWith(w, r, code, reason, hints)
}
