package settings

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// unknownVariables reports the variables with our prefix that are no setting of any variant. An empty variable counts as
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
		if !ours || value == "" || known[variable] || ofKubernetesService(variable, value) {
			continue
		}
		advice := r.whereListed()
		if near := nearestName(name); near != "" {
			advice = "did you mean " + Prefix + near + "?"
		}
		r.problem("%s is no setting: %s", shown(variable), advice)
	}
}

// whereListed says where the names of all settings are.
func (r *reader) whereListed() string {
	if r.variant == container {
		return "see -help"
	}
	return "the manual's table of settings has them all"
}

// ofKubernetesService says whether a variable is one that Kubernetes sets in each container for a Service, here one whose
// name begins with "grpc-health"
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

// nearestName is the name of the setting that was most likely meant: one that differs, or of which a flag differs, in two
// letters at most, in one where the name is short. Empty where none does.
func nearestName(name string) string {
	nearest, least := "", min(2, len(name)/3)+1
	for i := range declaration {
		s := &declaration[i]
		if s.name == "" {
			continue
		}
		for _, spelling := range slices.Concat([]string{s.name}, s.names(container), s.names(probe)) {
			spelling = strings.ToUpper(strings.ReplaceAll(spelling, "-", "_"))
			if len(name) > len(spelling)+least { // also keeps a name of any length from taking long
				continue
			}
			if d := distance(strings.ToUpper(name), spelling); d < least {
				nearest, least = s.name, d
			}
		}
	}
	return nearest
}

// maxShown bounds a variable's name in a message, in bytes.
const maxShown = 100

// shown is a variable's name for a message, which whoever sets the environment chooses: not too long, and with escapes in
// place of what is not printable ASCII.
func shown(variable string) string {
	more := ""
	if len(variable) > maxShown {
		variable, more = variable[:maxShown], "..."
	}
	quoted := strconv.QuoteToASCII(variable)
	return quoted[1:len(quoted)-1] + more
}
