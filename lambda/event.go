package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
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
var errNotUnderstood = errors.New(`this function does not understand the event: send {"service":"NAME"}, {} for what ` +
	`is configured, a schedule's event, or a request through a function URL, an API or a load balancer`)

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
	case has(fields, "methodArn"):
		return nil, errNotUnderstood // an authorizer's event, which is a REST API's otherwise
	case has(origin, "elb"):
		return parseTargetGroup(payload)
	case has(origin, "http"):
		return parsePayload2(payload)
	case has(fields, "httpMethod"):
		return parsePayload1(payload)
	case fields["service"] != nil:
		var name *string
		if err := json.Unmarshal(fields["service"], &name); err != nil || name == nil {
			return nil, errors.New(`the service is not a string: send {"service":"NAME"}`)
		}
		return ask(url.Values{"service": {*name}}), nil
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
