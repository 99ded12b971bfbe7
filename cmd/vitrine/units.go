package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/spf13/pflag"
)

// spanFlag adds a flag for a length of time that is written as Prometheus does
// (15d, 1h30m) or as Go does (1.5s, -1s).
func spanFlag(flags *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	flags.Var((*span)(p), name, usage)
}

// lengthFlag is spanFlag for what cannot be 0, which is refused and not taken for
// the default.
func lengthFlag(flags *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	flags.Var(length{(*span)(p)}, name, usage)
}

// length is a span that is not 0.
type length struct{ *span }

// Set implements pflag.Value.
func (l length) Set(text string) error {
	d, err := parseSpan(text)
	if err == nil && d == 0 {
		err = errors.New("0 is no length of time; leave the flag out for the default")
	}
	if err == nil {
		*l.span = span(d)
	}
	return err
}

// span is a length of time as a flag.
type span time.Duration

// Set implements pflag.Value.
func (s *span) Set(text string) error {
	d, err := parseSpan(text)
	if err != nil {
		return err
	}
	*s = span(d)
	return nil
}

func parseSpan(text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	positive, negative := strings.CutPrefix(text, "-")
	d, err := model.ParseDuration(positive)
	if err != nil {
		return 0, errors.New("want a length of time, as 15d, 1h30m or 10s")
	}
	if negative {
		d = -d
	}
	return time.Duration(d), nil
}

// String implements pflag.Value.
func (s *span) String() string {
	if *s == 0 {
		return "0" // a default that the help leaves out
	}
	if d := time.Duration(*s); d >= 0 && d%time.Millisecond == 0 {
		return model.Duration(d).String()
	}
	return time.Duration(*s).String()
}

// Type implements pflag.Value.
func (*span) Type() string { return "duration" }

// sizeFlag adds a flag for a number of bytes that may have a unit: 512MB or
// 512MiB, which are the same, as for Prometheus.
func sizeFlag(flags *pflag.FlagSet, p *int64, name string, value int64, usage string) {
	*p = value
	flags.Var((*size)(p), name, usage)
}

// size is a number of bytes as a flag.
type size int64

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		*s = size(n)
		return nil
	}
	n, err := units.ParseBase2Bytes(strings.ToUpper(text))
	if err != nil {
		if n, err = units.ParseBase2Bytes(text); err != nil {
			return errors.New("want a number of bytes, as 512MB, 2GiB or 1073741824")
		}
	}
	*s = size(n)
	return nil
}

// String implements pflag.Value.
func (s *size) String() string {
	if *s < 0 {
		return strconv.FormatInt(int64(*s), 10)
	}
	return units.Base2Bytes(*s).String()
}

// Type implements pflag.Value.
func (*size) Type() string { return "size" }
