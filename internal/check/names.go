package check

import (
	"context"

	"example.com/grpc-health-http/internal/grpcconn"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/prove"
)

// Names asks the server which services it has, with a List RPC; none where it does not say, and of more than 100 those with the
// worst statuses. It is for a command's message: it is no check, and its end is no verdict.
func (c *Checker) Names(ctx context.Context) []string {
	now := c.process.clock.Begin()
	defer c.process.clock.End()
	r := grpcconn.Request{List: true}
	result, _ := prove.New(ctx, c.options(), c.configured, r, now, now.Running+c.budget(), &permits{checker: c, request: r}).Run()
	names := make([]string, 0, len(result.List))
	for _, v := range result.List {
		if v.Service != "" && health.NameFault(v.Service) == "" {
			names = append(names, c.inert(v.Service))
		}
	}
	return names
}
