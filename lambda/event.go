package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// event is an invocation as a request, and the form of its result.
type event struct {
	request *http.Request
	result  func(*answer) any
	direct  bool // it did not come through HTTP
}

// errNotUnderstood says which events are understood.
var errNotUnderstood = errors.New(`this function does not understand the event: send {"service":"NAME"}, {"target":"NAME"}, {} for what ` +
	`is configured, a schedule's event, or a request through a function URL, an API, a load balancer or VPC Lattice`)

// errAuthorizer is for who takes this function for one that lets callers in: no verdict means that.
var errAuthorizer = errors.New("this is an authorizer's event, and this function authorizes nobody: make it the route's " +
	"integration, not its authorizer")

// authorizing are the members that an authorizer's event has and no request has. The rest of it looks like a REST API's, or an HTTP
// API's, request:
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html,
// https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html
var authorizing = []string{"methodArn", "routeArn", "identitySource", "authorizationToken"}

// scheduledBy are the sources of a schedule's events: a rule of EventBridge
// (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html), and EventBridge Scheduler.
var scheduledBy = []string{"aws.events", "aws.scheduler"}

// parse recognises an event by its shape. It takes anything: whoever may invoke a function may send
// it what they like.
func parse(payload []byte) (*event, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(payload, &fields); err != nil {
		return nil, errNotUnderstood
	}
	var origin map[string]json.RawMessage
	_ = json.Unmarshal(fields["requestContext"], &origin) // without an object there are no members
	switch {
	case slices.ContainsFunc(authorizing, func(name string) bool { return has(fields, name) }):
		return nil, errAuthorizer
	case has(origin, "elb"):
		return parseTargetGroup(payload)
	case has(origin, "http"):
		return parsePayload2(payload)
	case has(fields, "httpMethod"):
		return parsePayload1(payload)
	case has(fields, "method") && has(fields, "raw_path"):
		return parseLattice1(payload)
	case has(fields, "method") && has(fields, "path") && (has(origin, "serviceArn") || has(origin, "serviceNetworkArn") || has(origin, "targetGroupArn")):
		return parseLattice2(payload)
	case fields["service"] != nil || fields["target"] != nil || fields["group"] != nil:
		query := make(url.Values)
		for _, key := range []string{"target", "group", "service"} {
			if fields[key] == nil {
				continue
			}
			var name *string
			if err := json.Unmarshal(fields[key], &name); err != nil || name == nil {
				return nil, fmt.Errorf(`the %s is not a string: send {"%s":"NAME"}`, key, key)
			}
			query.Set(key, *name)
		}
		return ask(query), nil
	case len(fields) == 0 || isSchedule(fields["source"]):
		return ask(url.Values{}), nil
	}
	return nil, errNotUnderstood
}

// has says whether an object has a member that is not null.
func has(object map[string]json.RawMessage, name string) bool {
	member := object[name]
	return member != nil && string(member) != "null"
}

func isSchedule(source json.RawMessage) bool {
	var name string
	_ = json.Unmarshal(source, &name) // a source that is not a string is none of those
	return slices.Contains(scheduledBy, name)
}

// ask is the event of an invocation that asks for the verdicts as JSON.
func ask(query url.Values) *event {
	query.Set("format", "json")
	r := newRequest(http.MethodGet, "/", query.Encode(), make(http.Header))
	return &event{request: r, result: (*answer).plain, direct: true}
}

// parsePayload2 reads an event of a function URL or an HTTP API:
// https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
func parsePayload2(payload []byte) (*event, error) {
	var e events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, errNotUnderstood
	}
	path := e.RawPath
	if rest, ok := strings.CutPrefix(path, "/"+e.RequestContext.Stage); ok && strings.HasPrefix(rest, "/") {
		path = rest // an HTTP API puts a named stage in front
	}
	r := newRequest(e.RequestContext.HTTP.Method, path, e.RawQueryString, headerOf(e.Headers, nil))
	r.Body = bodyOf(e.Body, e.IsBase64Encoded)
	return &event{request: r, result: (*answer).payload2}, nil
}

// parsePayload1 reads an event of a REST API, or of an HTTP API that is set to its format. The query's
// parameters come decoded.
func parsePayload1(payload []byte) (*event, error) {
	var e events.APIGatewayProxyRequest
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, errNotUnderstood
	}
	query := joinQuery(e.QueryStringParameters, e.MultiValueQueryStringParameters, url.QueryEscape)
	r := newRequest(e.HTTPMethod, e.Path, query, headerOf(e.Headers, e.MultiValueHeaders))
	r.Body = bodyOf(e.Body, e.IsBase64Encoded)
	return &event{request: r, result: (*answer).payload1}, nil
}

// parseTargetGroup reads an event of a load balancer, which leaves the query's parameters as they were sent:
// https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
func parseTargetGroup(payload []byte) (*event, error) {
	var e events.ALBTargetGroupRequest
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, errNotUnderstood
	}
	asSent := func(text string) string { return text }
	query := joinQuery(e.QueryStringParameters, e.MultiValueQueryStringParameters, asSent)
	r := newRequest(e.HTTPMethod, e.Path, query, headerOf(e.Headers, e.MultiValueHeaders))
	r.Body = bodyOf(e.Body, e.IsBase64Encoded)
	result := (*answer).targetGroup
	if e.MultiValueHeaders != nil {
		result = (*answer).multiValueTargetGroup
	}
	return &event{request: r, result: result}, nil
}

// parseLattice2 reads an event of VPC Lattice, version 2.0:
// https://docs.aws.amazon.com/vpc-lattice/latest/ug/lambda-functions.html#receive-event-from-service
func parseLattice2(payload []byte) (*event, error) {
	var e struct {
		Path, Method          string
		Headers               map[string]oneOrMore
		QueryStringParameters map[string]oneOrMore
		Body                  string
		IsBase64Encoded       bool
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, errNotUnderstood
	}
	return latticeEvent(e.Method, e.Path, e.Headers, e.QueryStringParameters, e.Body, e.IsBase64Encoded), nil
}

// parseLattice1 reads an event of VPC Lattice, version 1.0, whose path has the query as it was sent.
func parseLattice1(payload []byte) (*event, error) {
	var e struct {
		RawPath               string `json:"raw_path"`
		Method                string
		Headers               map[string]oneOrMore
		QueryStringParameters map[string]oneOrMore `json:"query_string_parameters"`
		Body                  string
		IsBase64Encoded       bool `json:"is_base64_encoded"`
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, errNotUnderstood
	}
	return latticeEvent(e.Method, e.RawPath, e.Headers, e.QueryStringParameters, e.Body, e.IsBase64Encoded), nil
}

// latticeEvent takes the query from the path, where it is as it was sent, else from the parameters.
func latticeEvent(method, path string, headers, parameters map[string]oneOrMore, body string, encoded bool) *event {
	path, query, found := strings.Cut(path, "?")
	if !found {
		query = joinQuery(nil, plainly(parameters), url.QueryEscape)
	}
	r := newRequest(method, path, query, headerOf(nil, plainly(headers)))
	r.Body = bodyOf(body, encoded)
	return &event{request: r, result: (*answer).lattice}
}

// oneOrMore are the values of a header or parameter. VPC Lattice sends text in version 1.0 and lists in 2.0; both are
// read in both.
type oneOrMore []string

// UnmarshalJSON is of json.Unmarshaler.
func (v *oneOrMore) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*v = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(v))
}

// plainly is the map with plain slices.
func plainly(values map[string]oneOrMore) map[string][]string {
	plain := make(map[string][]string, len(values))
	for name, v := range values {
		plain[name] = v
	}
	return plain
}

// newRequest makes a request with an empty body. The path may have any text: one that is not well escaped
// is taken as it is.
func newRequest(method, path, rawQuery string, header http.Header) *http.Request {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		decoded = path
	}
	return &http.Request{
		Method: method,
		URL:    &url.URL{Path: decoded, RawPath: path, RawQuery: rawQuery},
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header,
		Host:   header.Get("Host"),
		Body:   http.NoBody,
	}
}

// headerOf are the headers of an event: the form with all values where it is there, else the other.
func headerOf(single map[string]string, multi map[string][]string) http.Header {
	header := make(http.Header, max(len(single), len(multi)))
	if multi == nil {
		for name, value := range single {
			header.Add(name, value)
		}
	}
	for name, values := range multi {
		for _, value := range values {
			header.Add(name, value)
		}
	}
	return header
}

// joinQuery makes a raw query of an event's parameters, sorted by name: of the form with all values where it is there, else of
// the other.
func joinQuery(single map[string]string, multi map[string][]string, escape func(string) string) string {
	var query []string
	if multi == nil {
		for _, name := range slices.Sorted(maps.Keys(single)) {
			query = append(query, escape(name)+"="+escape(single[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(multi)) {
		for _, value := range multi[name] {
			query = append(query, escape(name)+"="+escape(value))
		}
	}
	return strings.Join(query, "&")
}

// bodyOf is an event's body.
func bodyOf(text string, encoded bool) io.ReadCloser {
	var body io.Reader = strings.NewReader(text)
	if encoded {
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	return io.NopCloser(body)
}
