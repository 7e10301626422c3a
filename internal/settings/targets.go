package settings

import "errors"

// ReadTargets reads a targets file, sorted by the targets' names. Warnings are sentences to log, which name no values. A file with a mistake is an error of
// type Problems, with all of them.
func (s *Settings) ReadTargets(content []byte) (targets []Target, warnings []string, err error) {
	return nil, nil, errors.New("not written yet")
}
