package web

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/answer"
	"example.com/grpc-health-http/internal/health"
)

// What an answer takes is never more than what it is charged with, however its names are escaped.
func TestAnswerCost(t *testing.T) {
	t.Parallel()
	for _, f := range []format{formatHTML, formatJSON, formatText} {
		for _, n := range []int{0, 1, 2, 10, 100} {
			for _, text := range []string{"", "echo.EchoServer", strings.Repeat("a", 255), strings.Repeat(`"`, 255), strings.Repeat("\u2028", 85), strings.Repeat("<", 255), strings.Repeat("+", 255), strings.Repeat("é", 127)} {
				for _, cause := range []string{"", strings.Repeat("<", 1<<10), strings.Repeat("c", 1<<10)} {
					var verdicts []health.Verdict
					var q query
					for i := range n {
						name := text + fmt.Sprint(i)
						q.Services = append(q.Services, name)
						v := health.Verdict{Service: name, Status: health.Timeout, Phase: health.PhaseConnect, At: time.Now(), Since: time.Now(), EvidenceID: fmt.Sprintf("%012d", i), Duration: 12345678}
						if cause != "" {
							v.Err = errors.New(fmt.Sprint(i) + cause)
						}
						verdicts = append(verdicts, v)
					}
					var body []byte
					switch f {
					case formatHTML:
						body = loadPage().render(newPage(q, health.Timeout, verdicts, newPageCertificate(time.Now(), time.Now()), time.Now(), true))
					case formatJSON:
						body = answer.JSON(verdicts, false, true)
					default:
						body = answer.Text(verdicts)
					}
					// A buffer that grows exists twice for a moment; the smaller one is half as large.
					if took, cost := int64(cap(body))*3/2, answerCost(f, verdicts, true); took > cost {
						t.Errorf("%s, %d services %.3q, causes %.1q: %d bytes, charged with %d", f, n, text, cause, took, cost)
					}
				}
			}
		}
	}
}
