package health

// Configured returns what is checked where nothing is asked for: the services of the settings, or, where these name none, the
// whole server, which has the empty name.
func Configured(services []string) []string {
	if len(services) == 0 {
		return []string{""}
	}
	return services
}
