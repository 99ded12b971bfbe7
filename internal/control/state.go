package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// stateFormat is the version of the state file's form.
const stateFormat = 1

type savedState struct {
	Format    int          `json:"format"`
	Services  savedNumbers `json:"services"`
	Workloads savedNumbers `json:"workloads"`
}

// loadState reads the state file into the two sets of numbers. A file that
// does not exist is an empty one. A damaged file is moved aside (its new name
// is in the error) and the numbers stay empty.
func loadState(path string, services, workloads func() *numbers) (s, w *numbers, err error) {
	s, w = services(), workloads()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, w, nil
	}
	if err != nil {
		return s, w, fmt.Errorf("read state file: %w", err)
	}
	var saved savedState
	err = json.Unmarshal(data, &saved)
	if err == nil && saved.Format != stateFormat {
		err = fmt.Errorf("format %d, want %d", saved.Format, stateFormat)
	}
	if err == nil {
		err = errors.Join(s.load(saved.Services), w.load(saved.Workloads))
	}
	if err == nil {
		return s, w, nil
	}
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000")
	if moveErr := os.Rename(path, aside); moveErr != nil {
		return services(), workloads(), fmt.Errorf("state file %s is damaged (%w) and cannot be moved aside: %w", path, err, moveErr)
	}
	return services(), workloads(), fmt.Errorf("state file %s is damaged, kept as %s; addresses are given out anew: %w", path, aside, err)
}

// encodeState is the content of the state file.
func encodeState(services, workloads *numbers) ([]byte, error) {
	data, err := json.Marshal(savedState{Format: stateFormat, Services: services.save(), Workloads: workloads.save()})
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return data, nil
}
