package metricstore

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
)

// CheckRules reads the rule files that a pattern names (as filepath.Match
// understands it) and returns everything that is wrong with them, or that there
// are none. It needs no Store.
func CheckRules(pattern string) error {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("pattern %q: %w", pattern, err)
	}
	if len(paths) == 0 {
		return errors.New("no such file")
	}
	var errs []error
	for _, path := range paths {
		_, wrong := rulefmt.ParseFile(path, false, model.UTF8Validation, newParser(), slog.New(slog.DiscardHandler))
		errs = append(errs, wrong...)
	}
	// YAML that cannot be parsed is told twice: it is decoded for its values, then for its lines.
	return errors.Join(slices.CompactFunc(errs, func(a, b error) bool { return a.Error() == b.Error() })...)
}
