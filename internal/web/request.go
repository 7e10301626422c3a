package web

import (
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
)

// format is a kind of body; empty leaves the choice to the Accept header.
type format string

const (
	formatText format = "text"
	formatJSON format = "json"
	formatHTML format = "html"
)

// query is what the part of a URL after the question mark asks for.
type query struct {
	asker.Question
	format format
}

// parseQuery reads a non-empty query. Parameters that are not ours are ignored, whatever they hold: checkers add some of their own
// against caches. An error says what to change and repeats nothing of the query. (url.ParseQuery would lose the order between
// service and its alias.)
func parseQuery(raw string) (query, error) {
	var q query
	services, targets := 0, 0
	for parameter := range strings.SplitSeq(raw, "&") {
		key, value, err := ourParameter(parameter)
		if err != nil {
			return query{}, err
		}
		switch key {
		case "service", "serviceName":
			if services++; services > health.MaxServices {
				return query{}, fmt.Errorf("more than %d services are asked for: ask in several requests", health.MaxServices)
			}
			if fault := health.NameFault(value); fault != "" {
				return query{}, errors.New(fault)
			}
			add(&q.Services, value)
		case "target", "group":
			if targets++; targets > asker.MaxTargets {
				return query{}, fmt.Errorf("more than %d targets and groups are asked for: ask in several requests", asker.MaxTargets)
			}
			if value == "" {
				return query{}, fmt.Errorf("%s is empty: name one, or leave it out to ask for all", key)
			}
			if key == "target" {
				add(&q.Targets, value)
			} else {
				add(&q.Groups, value)
			}
		case "list":
			q.List = true
		case "format":
			q.format = format(value)
			switch q.format {
			case formatText, formatJSON, formatHTML:
			default:
				return query{}, fmt.Errorf("format is none of %s, %s, %s", formatText, formatJSON, formatHTML)
			}
		}
	}
	if q.List && services > 0 {
		return query{}, errors.New("list and service are both asked for: ask for one of them")
	}
	return q, nil
}

// add appends a name that is not there yet.
func add(names *[]string, name string) {
	if !slices.Contains(*names, name) {
		*names = append(*names, name)
	}
}

// ourParameter decodes a parameter. The key is empty if it is not ours.
func ourParameter(parameter string) (key, value string, err error) {
	key, value, _ = strings.Cut(parameter, "=")
	key, _, cut := strings.Cut(key, ";") // some take a semicolon for an ampersand
	key, err = url.QueryUnescape(key)
	if err != nil || !slices.Contains([]string{"service", "serviceName", "target", "group", "list", "format"}, key) {
		return "", "", nil
	}
	if cut || strings.Contains(value, ";") {
		return "", "", fmt.Errorf("%s has a semicolon: separate parameters with &, and write %%3B for a semicolon", key)
	}
	if value, err = url.QueryUnescape(value); err != nil {
		return "", "", fmt.Errorf("%s has a %% that two hexadecimal digits do not follow: write %%25 for a percent sign", key)
	}
	return key, value, nil
}

// narrowed says that not all is asked for that is configured.
func (q query) narrowed() bool {
	return q.List || len(q.Services)+len(q.Targets)+len(q.Groups) > 0
}

// link asks the same in another format.
func (q query) link(f format) string {
	values := url.Values{"format": {string(f)}}
	for key, names := range map[string][]string{"target": q.Targets, "group": q.Groups, "service": q.Services} {
		if len(names) > 0 {
			values[key] = names
		}
	}
	if q.List {
		values["list"] = []string{""}
	}
	return "?" + values.Encode()
}

// offers are the media types that can be sent, the preferred first.
var offers = [...]struct {
	mediaType string
	format    format
}{
	{"text/plain", formatText},
	{"application/json", formatJSON},
	{"text/html", formatHTML},
}

// mediaRange is one element of an Accept header.
type mediaRange struct {
	mediaType string
	quality   float64
}

// negotiate picks the format that the Accept headers prefer (RFC 9110, section 12.5.1): the
// highest quality, then the range that names it most exactly, then the one named first. It is text
// where they are missing, malformed, or accept nothing that can be sent.
func negotiate(accept []string) format {
	if len(accept) == 0 || len(accept) == 1 && (accept[0] == "" || accept[0] == "*/*") {
		return formatText
	}
	ranges, err := parseAccept(strings.Join(accept, ","))
	if err != nil {
		return formatText
	}
	best, bestQuality, bestExactness, bestPosition := formatText, 0.0, 0, 0
	for _, offer := range offers {
		quality, exactness, position := rate(offer.mediaType, ranges)
		better := quality > bestQuality
		if quality == bestQuality && quality > 0 {
			better = exactness > bestExactness || exactness == bestExactness && position < bestPosition
		}
		if better {
			best, bestQuality, bestExactness, bestPosition = offer.format, quality, exactness, position
		}
	}
	return best
}

// rate finds the range that names the media type most exactly, and the quality that it gives:
// 0 where the type is not acceptable.
func rate(mediaType string, ranges []mediaRange) (quality float64, exactness, position int) {
	mainType, _, _ := strings.Cut(mediaType, "/")
	for i, r := range ranges {
		var e int
		switch r.mediaType {
		case mediaType:
			e = 3
		case mainType + "/*":
			e = 2
		case "*/*":
			e = 1
		}
		if e > exactness {
			quality, exactness, position = r.quality, e, i
		}
	}
	return quality, exactness, position
}

// parseAccept reads an Accept header.
func parseAccept(header string) ([]mediaRange, error) {
	var ranges []mediaRange
	for _, element := range splitList(header) {
		if strings.TrimSpace(element) == "" {
			continue // RFC 9110, section 5.6.1.2: recipients ignore empty elements
		}
		mediaType, parameters, err := mime.ParseMediaType(element)
		if err != nil {
			return nil, err
		}
		if !strings.Contains(mediaType, "/") {
			return nil, errors.New("a media range has no slash")
		}
		r := mediaRange{mediaType: mediaType, quality: 1}
		if q, ok := parameters["q"]; ok {
			if r.quality, err = parseQuality(q); err != nil {
				return nil, err
			}
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// parseQuality reads a weight: 0 to 1 in decimal digits.
func parseQuality(text string) (float64, error) {
	if strings.Trim(text, "0123456789.") != "" {
		return 0, errors.New("a quality is not a decimal number")
	}
	quality, err := strconv.ParseFloat(text, 64)
	if err != nil || quality > 1 {
		return 0, errors.New("a quality is not between 0 and 1")
	}
	return quality, nil
}

// splitList splits a header's value at the commas that are not inside a quoted string.
func splitList(header string) []string {
	var elements []string
	start, quoted := 0, false
	for i := 0; i < len(header); i++ {
		switch c := header[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			elements = append(elements, header[start:i])
			start = i + 1
		}
	}
	return append(elements, header[start:])
}
