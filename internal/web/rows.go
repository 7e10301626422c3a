package web

import (
	"cmp"
	"html"
	"html/template"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

const (
	// manyRows is the number of rows from which the page is compact.
	manyRows = 8
	// maxExplained is the number of rows up to which the banner says more than how many serve.
	maxExplained = 100
	// maxRows is how many rows a page has; those that are worse than the others.
	maxRows = 2000
	// bars is how many checks a strip shows.
	bars = 60
)

// pageRow is a service. Its times are in UTC.
type pageRow struct {
	health.Verdict
	Name, Tone, Took string
	link             string // where it is alone; empty where there is no such page
	group            string
	strip            string // a letter for each check, the oldest first; empty where none are kept
}

// The letters of strips.
const (
	letterGood   = 'g'
	letterBad    = 'b'
	letterUnsure = 'u'
)

var letters = map[string]byte{"good": letterGood, "bad": letterBad, "unsure": letterUnsure}

// kept is what the instance remembers of what a page shows.
type kept struct {
	strips []string // of each verdict
	all    []past   // of all verdicts together, the oldest first; only where the page is not compact
}

// past is what a page showed, or would have shown.
type past struct {
	at     time.Time
	status health.Status
}

// newKept reads the histories.
func newKept(found asker.Answer) (k kept) {
	compact := len(found.Verdicts) >= manyRows
	histories := make([][]health.Past, 0, len(found.Verdicts))
	for i := range found.Verdicts {
		v := &found.Verdicts[i]
		var history []health.Past
		if u := found.Fleet.Find(v.Target); u != nil && u.History != nil && !v.List {
			history = u.History(v.Service)
			history = history[max(0, len(history)-bars):]
		}
		if compact {
			k.strips = append(k.strips, strip(history))
		} else {
			histories = append(histories, history)
		}
	}
	if compact {
		if !slices.ContainsFunc(k.strips, func(s string) bool { return s != "" }) {
			return kept{}
		}
		return k
	}
	k.all = together(histories)
	return k
}

// strip has a letter for each check.
func strip(history []health.Past) string {
	if len(history) == 0 {
		return ""
	}
	text := make([]byte, len(history))
	for i, p := range history {
		text[i] = letters[wordingOf(p.Status).Tone]
	}
	return string(text)
}

// together is the worst of several histories, check by check from the latest one: what is checked regularly, or asked for together, is checked equally often.
// It is as long as the shortest.
func together(histories [][]health.Past) []past {
	shortest := bars
	for _, history := range histories {
		shortest = min(shortest, len(history))
	}
	if len(histories) == 0 {
		return nil
	}
	all := make([]past, shortest)
	for i := range all {
		verdicts := make([]health.Verdict, 0, len(histories))
		for _, history := range histories {
			p := history[len(history)-shortest+i]
			verdicts = append(verdicts, health.Verdict{Status: p.Status})
			if p.At.After(all[i].at) {
				all[i].at = p.At
			}
		}
		all[i].status = health.Worst(verdicts)
	}
	return all
}

// tally counts the verdicts of an answer.
type tally struct {
	rows, serving, targets int
	leftOut                int  // of a long List
	beyond                 int  // rows that are not on the page
	groups                 bool // the rows are by their groups
}

// cut returns an answer with no more verdicts than a page has rows, the worst first, and counts those of the whole answer. A compact page of
// several groups has its verdicts by group.
func cut(found asker.Answer) (asker.Answer, tally) {
	t := tally{rows: len(found.Verdicts)}
	targets := make(map[string]bool)
	for i := range found.Verdicts {
		v := &found.Verdicts[i]
		t.leftOut += v.LeftOut
		if v.Status == health.Serving {
			t.serving++
		}
		targets[v.Target] = true
	}
	t.targets = len(targets)
	found.Verdicts = slices.Clone(found.Verdicts)
	ranks := health.Statuses()
	slices.SortStableFunc(found.Verdicts, func(a, b health.Verdict) int {
		return cmp.Compare(slices.Index(ranks, a.Status), slices.Index(ranks, b.Status))
	})
	t.beyond = max(0, t.rows-maxRows)
	found.Verdicts = found.Verdicts[:t.rows-t.beyond]
	if len(found.Verdicts) >= manyRows {
		t.groups = byGroup(found.Verdicts, found.Fleet)
	}
	return found, t
}

// byGroup sorts verdicts, the worst first, by the groups of their targets, and says whether there are several. What does not serve stays before what does.
//
// The group with the worst row is the first, so the first row of a page is the worst of all, and each row stands below those that are worse and in its group. A group
// that is down for one reason is one block of rows, which the order of the statuses alone would scatter.
func byGroup(verdicts []health.Verdict, fleet *asker.Fleet) bool {
	type group struct {
		name string
		rows []health.Verdict
	}
	groups := make(map[string]*group)
	groupOf := func(v *health.Verdict) string {
		if u := fleet.Find(v.Target); u != nil {
			return u.Group
		}
		return ""
	}
	for i := range verdicts {
		if name := groupOf(&verdicts[i]); groups[name] == nil {
			groups[name] = &group{name: name}
		}
	}
	if len(groups) < 2 {
		return false
	}
	ranks := health.Statuses()
	worst := func(g *group) int { return slices.Index(ranks, g.rows[0].Status) }
	serving := slices.IndexFunc(verdicts, func(v health.Verdict) bool { return v.Status == health.Serving })
	if serving < 0 {
		serving = len(verdicts)
	}
	for _, part := range [][]health.Verdict{verdicts[:serving], verdicts[serving:]} {
		var there []*group
		for i := range part {
			g := groups[groupOf(&part[i])]
			if len(g.rows) == 0 {
				there = append(there, g)
			}
			g.rows = append(g.rows, part[i])
		}
		slices.SortFunc(there, func(a, b *group) int {
			if c := cmp.Compare(worst(a), worst(b)); c != 0 {
				return c
			}
			return compareGroups(a.name, b.name)
		})
		to := part[:0]
		for _, g := range there {
			to = append(to, g.rows...) // of the same rows: there is room
			g.rows = nil
		}
	}
	return true
}

// compareGroups orders groups by name; that of the targets without a group is the last.
func compareGroups(a, b string) int {
	if a == "" || b == "" {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// newRow is the row of a verdict. u is its upstream; nil where it is not there any more.
func newRow(v health.Verdict, u *asker.Upstream, strip string) pageRow {
	r := pageRow{Tone: wordingOf(v.Status).Tone, strip: strip}
	values := url.Values{"format": {string(formatHTML)}}
	if v.Target != "" {
		values["target"] = []string{v.Target}
	}
	switch {
	case v.List:
		values["list"] = []string{""}
	case v.Target != "" && u != nil && len(health.Configured(u.Services)) == 1 && health.Configured(u.Services)[0] == v.Service: // it is all of the target
	default:
		values["service"] = []string{v.Service}
	}
	if health.NameFault(v.Service) == "" {
		r.link = "?" + values.Encode()
	}
	if u != nil {
		r.group = u.Group
	}
	v.Service = inert.Text(v.Service)
	v.At, v.Since = v.At.UTC(), v.Since.UTC()
	r.Verdict = v
	r.Name = v.Service
	if r.Name == "" {
		r.Name = wholeServer
	}
	r.Took = strconv.FormatFloat(v.Duration.Seconds()*1000, 'f', 1, 64) + " ms"
	return r
}

// rowShape is what the rows of a page have in common.
type rowShape struct {
	targets  bool // their first cell is the target
	links    bool // the first cell leads to a page of the row alone
	compact  bool // times are short
	headings headings
}

// rowsHTML are the rows in HTML. A template would take as much time for a thousand as is there for the whole page.
func rowsHTML(rows []pageRow, shape rowShape) template.HTML {
	size := 0
	for i := range rows {
		size += 512 + 2*len(rows[i].link) + 4*len(rows[i].strip) + len(rows[i].Target) + len(rows[i].Service)
		if shape.headings.before(rows, i) {
			size += 256 + 4*len(rows[i].group)
		}
	}
	b := make([]byte, 0, size)
	for i := range rows {
		if shape.headings.before(rows, i) {
			b = shape.headings.append(b, rows[i].group)
		}
		b = appendRow(b, &rows[i], shape)
	}
	return template.HTML(b)
}

// noGroup is the heading of targets that are in no group.
const noGroup = "No group"

// headings are those of the groups in a table of rows. The zero value has none.
type headings struct {
	groups  map[string]*groupTally
	serving bool // the table is that of the rows that serve
	part    bool // of a group's rows some are not on the page
	links   bool // a name leads to a page of the group
}

// groupTally counts the rows of a group.
type groupTally struct {
	rows, serving int
	targets       map[string]bool
}

// newHeadings counts rows by their groups.
func newHeadings(rows []pageRow) headings {
	h := headings{groups: make(map[string]*groupTally)}
	for i := range rows {
		g := h.groups[rows[i].group]
		if g == nil {
			g = &groupTally{targets: make(map[string]bool)}
			h.groups[rows[i].group] = g
		}
		g.rows++
		if rows[i].Status == health.Serving {
			g.serving++
		}
		g.targets[rows[i].Target] = true
	}
	return h
}

// before says whether there is a heading before a row.
func (h *headings) before(rows []pageRow, i int) bool {
	return h.groups != nil && (i == 0 || rows[i].group != rows[i-1].group)
}

// append appends the heading of a group: its name, and how many of its rows are as those of the table are.
func (h *headings) append(b []byte, group string) []byte {
	g := h.groups[group]
	b = append(b, "\n<tr role=row class=group"...)
	if group != "" {
		b = append(b, ` data-group="`...)
		b = append(b, html.EscapeString(group)...)
		b = append(b, '"')
	}
	b = append(b, "><th role=rowheader scope=rowgroup colspan=9>"...)
	linked := h.links && group != "" && len(g.targets) <= asker.MaxTargets
	if linked {
		link := url.Values{"format": {string(formatHTML)}, "group": {group}}
		b = append(b, `<a href="?`...)
		b = append(b, html.EscapeString(link.Encode())...)
		b = append(b, `">`...)
	}
	b = append(b, "<bdi>"...)
	b = append(b, html.EscapeString(cmp.Or(group, noGroup))...)
	b = append(b, "</bdi>"...)
	if linked {
		b = append(b, "</a>"...)
	}
	b = append(b, " <span>"...)
	n, word := g.rows-g.serving, " not serving"
	if h.serving {
		n, word = g.serving, " serving"
	}
	b = strconv.AppendInt(b, int64(n), 10)
	if !h.part {
		b = append(b, " of "...)
		b = strconv.AppendInt(b, int64(g.rows), 10)
	}
	b = append(b, word...)
	return append(b, "</span></th></tr>"...)
}

// appendRow appends a row. The page's style and script know its cells by their places. All that comes from outside is escaped, and in quotes where it is an attribute's.
func appendRow(b []byte, r *pageRow, shape rowShape) []byte {
	b = append(b, "\n<tr role=row class="...)
	b = append(b, r.Tone...)
	if r.Service == "" {
		b = append(b, " data-whole"...)
	}
	if r.group != "" {
		b = append(b, ` data-group="`...)
		b = append(b, html.EscapeString(r.group)...)
		b = append(b, '"')
	}
	first, rest := r.Name, ""
	if shape.targets {
		first, rest = r.Target, r.Name
	}
	b = append(b, "><th role=rowheader scope=row>"...)
	linked := shape.links && r.link != ""
	if linked {
		b = append(b, `<a href="`...)
		b = append(b, html.EscapeString(r.link)...)
		b = append(b, `">`...)
	}
	b = appendName(b, first, shape)
	if linked {
		b = append(b, "</a>"...)
	}
	b = append(b, "</th>"...)
	if shape.targets {
		b = append(b, openCell...)
		b = appendName(b, rest, shape)
		b = append(b, "</td>"...)
	}
	b = appendCell(b, r.Status.String())
	b = append(b, openCell...)
	b = appendStrip(b, r.strip)
	b = append(b, "</td>"...)
	b = appendCell(b, string(r.Phase))
	b = appendCell(b, r.GRPCCode())
	b = appendCell(b, r.Took)
	b = appendTime(b, r.At, shape)
	b = appendTime(b, r.Since, shape)
	return append(b, "</tr>"...)
}

const (
	openCell  = "<td role=cell>"
	emptyCell = "<td role=cell class=none>–</td>"
)

// appendName appends a name, which may be broken after its dots where there is little room.
func appendName(b []byte, name string, shape rowShape) []byte {
	b = append(b, "<bdi>"...)
	for shape.compact || shape.targets {
		before, after, found := strings.Cut(name, ".")
		if !found {
			break
		}
		b = append(b, html.EscapeString(before)...)
		b = append(b, ".<wbr>"...)
		name = after
	}
	b = append(b, html.EscapeString(name)...)
	return append(b, "</bdi>"...)
}

// appendCell appends a cell with one of our own words.
func appendCell(b []byte, word string) []byte {
	if word == "" {
		return append(b, emptyCell...)
	}
	b = append(b, openCell...)
	b = append(b, word...)
	return append(b, "</td>"...)
}

func appendTime(b []byte, t time.Time, shape rowShape) []byte {
	if t.IsZero() {
		return append(b, emptyCell...)
	}
	b = append(b, openCell...)
	if shape.compact { // a valid time as it is
		b = t.AppendFormat(append(b, "<time>"...), "2006-01-02 15:04:05Z")
	} else {
		b = t.AppendFormat(append(b, `<time datetime="`...), machineTime)
		b = t.AppendFormat(append(b, `">`...), humanTime)
	}
	return append(b, "</time></td>"...)
}

// Layouts of times, as the template has them.
const (
	machineTime = "2006-01-02T15:04:05.000Z07:00"
	humanTime   = "2 Jan 2006, 15:04:05 MST"
)

// A row's strip is 180 by 16 pixels: a bar of two pixels for each check, and one pixel between bars. A line for each run of equal checks, as thick as
// its bars are high, is cut into these by the page's style.
const (
	stripWidth = 180
	barWidth   = stripWidth / bars
)

// stripLines are the tones' lines: their heights in the middle.
var stripLines = [...]struct {
	letter byte
	open   string
	middle string
}{
	{letterGood, `<path class=good d="`, " 8h"},
	{letterUnsure, `<path class=unsure d="`, " 10h"},
	{letterBad, `<path class=bad d="`, " 12h"},
}

// appendStrip appends a row's strip, the latest check at the right.
func appendStrip(b []byte, strip string) []byte {
	if strip == "" {
		return b
	}
	good := 0
	for i := range len(strip) {
		if strip[i] == letterGood {
			good++
		}
	}
	b = append(b, `<svg role=img aria-label="`...)
	b = strconv.AppendInt(b, int64(good), 10)
	b = append(b, " of "...)
	b = strconv.AppendInt(b, int64(len(strip)), 10)
	b = append(b, ` serving">`...)
	for _, line := range stripLines {
		opened := false
		for i := 0; i < len(strip); {
			if strip[i] != line.letter {
				i++
				continue
			}
			end := i
			for end < len(strip) && strip[end] == line.letter {
				end++
			}
			if !opened {
				b = append(b, line.open...)
				opened = true
			}
			b = append(b, 'M')
			b = strconv.AppendInt(b, int64((bars-len(strip)+i)*barWidth), 10)
			b = append(b, line.middle...)
			b = strconv.AppendInt(b, int64((end-i)*barWidth), 10)
			i = end
		}
		if opened {
			b = append(b, `"/>`...)
		}
	}
	return append(b, "</svg>"...)
}
