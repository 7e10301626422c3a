package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// answer is the http.ResponseWriter that keeps what a handler answers. All bodies of ours are text in
// UTF-8, so none needs the results' Base64.
type answer struct {
	code   int // 0 until it is written
	header http.Header
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{header: make(http.Header)} }

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
		// The platform counts the body's bytes itself; the length that HEAD gets is not that of its body.
		a.header.Del("Content-Length")
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// joined are the headers where each may have one value only (RFC 9110, section 5.3, lets them be joined).
func (a *answer) joined() map[string]string {
	headers := make(map[string]string, len(a.header))
	for name, values := range a.header {
		headers[name] = strings.Join(values, ", ")
	}
	return headers
}

// payload2 is the result of a function URL and of an HTTP API, which have the same form:
// https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-response-payload
func (a *answer) payload2() any {
	return events.LambdaFunctionURLResponse{StatusCode: a.code, Headers: a.joined(), Body: a.body.String()}
}

// payload1 is the result of a REST API:
// https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
func (a *answer) payload1() any {
	return events.APIGatewayProxyResponse{StatusCode: a.code, MultiValueHeaders: a.header, Body: a.body.String()}
}

// targetGroup is the result of a load balancer, which reads only the form of headers that the target
// group is set to: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
func (a *answer) targetGroup() any {
	return events.ALBTargetGroupResponse{
		StatusCode: a.code, StatusDescription: a.description(), Headers: a.joined(), Body: a.body.String(),
	}
}

// multiValueTargetGroup is targetGroup's where the target group has multi-value headers switched on.
func (a *answer) multiValueTargetGroup() any {
	return events.ALBTargetGroupResponse{
		StatusCode: a.code, StatusDescription: a.description(), MultiValueHeaders: a.header, Body: a.body.String(),
	}
}

// lattice is the result of VPC Lattice, in both versions:
// https://docs.aws.amazon.com/vpc-lattice/latest/ug/lambda-functions.html#respond-to-service
func (a *answer) lattice() any {
	return latticeResponse{StatusCode: a.code, StatusDescription: a.description(), Headers: a.joined(), Body: a.body.String()}
}

// latticeResponse is what VPC Lattice understands, which has no type in aws-lambda-go.
type latticeResponse struct {
	IsBase64Encoded   bool              `json:"isBase64Encoded"`
	StatusCode        int               `json:"statusCode"`
	StatusDescription string            `json:"statusDescription"`
	Headers           map[string]string `json:"headers"`
	Body              string            `json:"body"`
}

// description is the status line without the version, "200 OK".
func (a *answer) description() string { return strconv.Itoa(a.code) + " " + http.StatusText(a.code) }

// plain is the result of what did not come through HTTP: the JSON of the verdicts, or why there are none.
func (a *answer) plain() any {
	if a.header.Get("Content-Type") == "application/json" {
		return json.RawMessage(a.body.Bytes())
	}
	return refusal{strings.TrimSpace(a.body.String())}
}

// refusal is the result of an invocation without a verdict.
type refusal struct {
	Error string `json:"error"`
}
