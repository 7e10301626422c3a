package settings

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"example.com/grpc-health-http/internal/near"
)

// unknownVariables reports the variables with our prefix that are not a setting of any variant. An empty variable counts as
// unset.
func (r *reader) unknownVariables() {
	known := make(map[string]bool)
	for _, v := range Variables() {
		known[v.Name] = true
	}
	environment := os.Environ()
	slices.Sort(environment)
	for _, entry := range environment {
		variable, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, Prefix)
		if !ours || strings.TrimSpace(value) == "" || known[variable] || ofKubernetesService(variable, value) {
			continue
		}
		advice := r.whereListed()
		if near := nearestName(name); near != "" {
			advice = "did you mean " + Prefix + near + "?"
		}
		r.problem("%s is no setting: %s", shown(variable), advice)
	}
}

// whereListed says where to find the names of all settings.
func (r *reader) whereListed() string {
	if r.variant == container || r.variant == probe {
		return "see -help"
	}
	return "the manual's table of settings has them all"
}

// ofKubernetesService reports whether a variable is one that Kubernetes sets in each container for a Service. If the Service's
// name begins with "grpc-health", the variable has our prefix
// (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
func ofKubernetesService(variable, value string) bool {
	switch {
	case strings.HasSuffix(variable, "_SERVICE_HOST"),
		strings.Contains(variable, "_SERVICE_PORT"),
		strings.Contains(variable, "_PORT_"):
		return true
	case strings.HasSuffix(variable, "_PORT"):
		return strings.HasPrefix(value, "tcp://") || strings.HasPrefix(value, "udp://")
	}
	return false
}

// nearestName returns the name of the setting that was most likely meant: the setting's name or one of its flags differs in at
// most two letters, or in fewer where the name is short, or begins with it. It returns "" if no setting is that near.
func nearestName(name string) string {
	nearest, least := "", min(2, len(name)/3)+1
	for i := range declaration {
		s := &declaration[i]
		if s.name == "" {
			continue
		}
		for _, spelling := range slices.Concat([]string{s.name}, s.names(container), s.names(probe)) {
			spelling = strings.ToUpper(strings.ReplaceAll(spelling, "-", "_"))
			if len(name) > len(spelling)+least { // cannot be near, and a very long name would take long to compare
				continue
			}
			d := near.Distance(strings.ToUpper(name), spelling)
			if len(name) > 5 && strings.HasPrefix(spelling, strings.ToUpper(name)+"_") {
				d = min(d, 1)
			}
			if d < least {
				nearest, least = s.name, d
			}
		}
	}
	return nearest
}

// maxShown is how many bytes of a variable's name a message shows.
const maxShown = 100

// shown returns a variable's name for a message. The name can be any text, so it is cut, and what is not printable ASCII is
// escaped.
func shown(variable string) string {
	more := ""
	if len(variable) > maxShown {
		variable, more = variable[:maxShown], "..."
	}
	quoted := strconv.QuoteToASCII(variable)
	return quoted[1:len(quoted)-1] + more
}
