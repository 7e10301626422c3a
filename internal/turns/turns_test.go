package turns_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/turns"
)

// TestOrder has turns wanted and returned, and looks at who gets them. A step is a target's letter and a number by which it is
// told, as "a1"; a capital letter is a made-up name's of that target. "a1@5" is needed by 5 s, others by 9 s. "-a1" returns it, and
// "a1<3" says that it is needed by 3 s already. want are those that have come, in the order of the letters.
func TestOrder(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		limit int
		steps string
		want  string
	}{
		{"up to the limit", 4, "a1 b1 c1 d1 e1", "a1 b1 c1 d1"},
		{"the first who waits comes next", 4, "a1 b1 c1 d1 e1 f1 -a1", "b1 c1 d1 e1"},
		{"the one who needs it first", 4, "a1 b1 c1 d1 e1@5 f1@4 g1@6 -a1", "b1 c1 d1 f1"},
		{"the one who needs it first after all", 4, "a1 b1 c1 d1 e1@5 f1@6 f1<3 -a1", "b1 c1 d1 f1"},
		{"who needs it later after all stays", 4, "a1 b1 c1 d1 e1@5 f1@6 e1<7 -a1", "b1 c1 d1 e1"},
		{"it is no longer wanted", 4, "a1 b1 c1 d1 e1@5 f1 -e1 -a1", "b1 c1 d1 f1"},
		{"returned twice", 4, "a1 b1 c1 d1 e1 f1 -a1 -a1", "b1 c1 d1 e1"},
		{"alone a target leaves half", 12, "a1 a2 a3 a4 a5 a6 a7 a8", "a1 a2 a3 a4 a5 a6"},
		{"but has four", 4, "a1 a2 a3 a4 a5", "a1 a2 a3 a4"},
		{"which others get", 12, "a1 a2 a3 a4 a5 a6 a7 b1 b2 b3 c1 d1 e1 f1", "a1 a2 a3 a4 a5 a6 b1 b2 b3 c1 d1 e1"},
		{"before the one who has much", 12, "a1 a2 a3 a4 a5 a6 a7@1 b1 b2 b3 c1 d1 e1 f1 -a1", "a2 a3 a4 a5 a6 b1 b2 b3 c1 d1 e1 f1"},
		{"also where several have much", 20, "a1 a2 a3 a4 a5 b1 b2 b3 b4 b5 b6 a6 c1 c2 c3 c4 c5 d1 d2 e1 e2 e3 e4 e5",
			"a1 a2 a3 a4 a5 b1 b2 b3 b4 b5 c1 c2 c3 c4 d1 d2 e1 e2 e3 e4"},
		{"who has much comes once nobody else waits", 12, "a1 a2 a3 a4 a5 a6 a7 b1 c1 d1 -b1 -c1 -d1 -a1", "a2 a3 a4 a5 a6 a7"},
		{"others first as long as they have less", 8, "a1 a2 a3 a4 a5@1 b1 b2 c1 c2 b3@2 d1@3 -c1 -c2 -b1", "a1 a2 a3 a4 b2 b3 d1"},
		{"made-up names leave half", 12, "A1 A2 A3 B1 B2 B3 C1", "A1 A2 A3 B1 B2 B3"},
		{"which configured services get", 12, "A1 A2 A3 B1 B2 B3 C1@1 a1 c1", "A1 A2 A3 B1 B2 B3 a1 c1"},
		{"and before them", 12, "A1 A2 A3 B1 B2 B3 C1@1 a1 b1 c1 c2 d1 d2 d3@7 -A1", "A2 A3 B1 B2 B3 a1 b1 c1 c2 d1 d2 d3"},
		{"also those of the same target", 12, "A1 A2 A3 A4 A5 A6 A7 a1 a2 b1 b2", "A1 A2 A3 A4 A5 A6 a1 b1 b2"},
		{"which has four once the others are gone", 12, "A1 A2 A3 A4 A5 A6 A7 a1 a2 a3 a4 a5 b1 b2 b3 b4 -A1 -A2 -A3 -A4 -A5 -A6 -A7", "a1 a2 a3 a4 b1 b2 b3 b4"},
		{"made-up names leave their target its fourth", 16, "b1 b2 b3 b4 c1 A1 A2 A3 A4@1 d1 C3@5 a4", "A1 A2 A3 a4 b1 b2 b3 b4 c1 d1"},
		{"what is configured before what is made up", 20, "B1 B2 B3 a1 a2 a3 a4 c1 c2 c3 a5@9 B4@1 -c1", "B1 B2 B3 a1 a2 a3 a4 a5 c2 c3"},
		{"who has little before who has much", 20, "a1 a2 a3 a4 c1 c2 c3 d1 d2 d3 a5@1 B1@9 -c1", "B1 a1 a2 a3 a4 c2 c3 d1 d2 d3"},
		{"a limit of one", 1, "a1 b1@2 c1@1 -a1", "c1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := turns.NewGate(tt.limit)
			targets := make(map[string]*turns.Target)
			wanted := make(map[string]*turns.Turn)
			for _, step := range strings.Fields(tt.steps) {
				var at int
				switch name, due, _ := strings.Cut(step, "<"); {
				case strings.HasPrefix(step, "-"):
					wanted[step[1:]].Return()
					wanted[step[1:]].Return()
					delete(wanted, step[1:])
					continue
				case due != "":
					fmt.Sscan(due, &at)
					wanted[name].NeededBy(time.Duration(at) * time.Second)
					continue
				}
				name, due, _ := strings.Cut(step, "@")
				at = 9
				fmt.Sscan(due, &at)
				of := strings.ToLower(name[:1])
				if targets[of] == nil {
					targets[of] = g.Target()
				}
				wanted[name] = targets[of].Want(time.Duration(at)*time.Second, of != name[:1])
			}
			var came []string
			for name, turn := range wanted {
				if has(turn) {
					came = append(came, name)
				}
			}
			slices.Sort(came)
			if got := strings.Join(came, " "); got != tt.want {
				t.Errorf("%s have their turn, want %s", got, tt.want)
			}
			if used, waiting := g.Used(); used != len(came) || waiting != len(wanted)-len(came) {
				t.Errorf("%d turns are used and %d waited for, want %d and %d", used, waiting, len(came), len(wanted)-len(came))
			}
		})
	}
}

// has says that a turn has come.
func has(turn *turns.Turn) bool {
	if !turn.Waits() {
		return true
	}
	select {
	case <-turn.Came():
		return true
	default:
		return false
	}
}

// Nothing has a limit without a Gate.
func TestNoGate(t *testing.T) {
	t.Parallel()
	var g *turns.Gate
	turn := g.Target().Want(0, true)
	turn.NeededBy(0)
	if turn.Waits() {
		t.Error("a turn waits that nothing limits")
	}
	turn.Return()
}

// Many at once, for the race detector: never more than the limit, and none is lost.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	const limit = 8
	g := turns.NewGate(limit)
	var all sync.WaitGroup
	var mu sync.Mutex
	running, most := 0, 0
	for i := range 20 {
		target := g.Target()
		for j := range 10 {
			random := rand.New(rand.NewPCG(uint64(i), uint64(j)))
			all.Go(func() {
				for range 50 {
					turn := target.Want(time.Duration(random.IntN(100)), random.IntN(3) == 0)
					turn.NeededBy(time.Duration(random.IntN(100)))
					if turn.Waits() && random.IntN(4) > 0 {
						<-turn.Came()
					}
					if has(turn) {
						mu.Lock()
						running++
						most = max(most, running)
						mu.Unlock()
						mu.Lock()
						running--
						mu.Unlock()
					}
					turn.Return()
				}
			})
		}
	}
	all.Wait()
	if most > limit {
		t.Errorf("%d had a turn at once, want %d at most", most, limit)
	}
	if used, waiting := g.Used(); used+waiting > 0 {
		t.Errorf("%d turns are left, and %d wait", used, waiting)
	}
}

func BenchmarkTurn(b *testing.B) {
	target := turns.NewGate(64).Target()
	b.ReportAllocs()
	for b.Loop() {
		target.Want(0, false).Return()
	}
}

// BenchmarkManyWaiting is a turn while so many wait for theirs.
func BenchmarkManyWaiting(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g := turns.NewGate(64)
			var queue []*turns.Turn
			for i := range n + 64 {
				queue = append(queue, g.Target().Want(time.Duration(i), false))
			}
			i := n + 64
			for b.Loop() {
				queue[0].Return()
				queue = append(queue[1:], g.Target().Want(time.Duration(i), false))
				i++
			}
		})
	}
}
