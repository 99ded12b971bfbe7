package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestSpanFlag(t *testing.T) {
	for text, want := range map[string]struct {
		value time.Duration
		shown string
	}{
		"15d":    {15 * 24 * time.Hour, "15d"},
		"1w":     {7 * 24 * time.Hour, "1w"},
		"360h":   {15 * 24 * time.Hour, "15d"},
		"1h30m":  {90 * time.Minute, "1h30m"},
		"10s":    {10 * time.Second, "10s"},
		"1.5s":   {1500 * time.Millisecond, "1s500ms"},
		"250us":  {250 * time.Microsecond, "250µs"},
		"-1s":    {-time.Second, "-1s"},
		"-1d":    {-24 * time.Hour, "-24h0m0s"},
		"0":      {0, "0"},
		"1d12h":  {36 * time.Hour, "1d12h"},
		"100ms":  {100 * time.Millisecond, "100ms"},
		"1m0.5s": {60500 * time.Millisecond, "1m500ms"},
	} {
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		var got time.Duration
		spanFlag(flags, &got, "span", time.Minute, "")
		if err := flags.Parse([]string{"--span=" + text}); err != nil || got != want.value || flags.Lookup("span").Value.String() != want.shown {
			t.Errorf("%s: %v shown as %s, %v, want %v as %s", text, got, flags.Lookup("span").Value, err, want.value, want.shown)
		}
	}
	for _, text := range []string{"", "ten", "15", "1h 30m", "d"} {
		var got time.Duration
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		spanFlag(flags, &got, "span", time.Minute, "")
		if err := flags.Parse([]string{"--span=" + text}); err == nil || got != time.Minute {
			t.Errorf("%q: accepted as %v", text, got)
		}
	}
}

func TestLengthFlag(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	var got time.Duration
	lengthFlag(flags, &got, "length", time.Minute, "")
	for text, want := range map[string]string{"0": "1m", "0s": "1m", "ten": "1m", "2d": "2d", "-1s": "-1s"} {
		got = time.Minute
		err := flags.Parse([]string{"--length=" + text})
		if f := flags.Lookup("length").Value; (err != nil) != (want == "1m") || f.String() != want || f.Type() != "duration" {
			t.Errorf("%s: %v shown as %s, %v; want %s", text, got, f, err, want)
		}
	}
}

func TestSizeFlag(t *testing.T) {
	for text, want := range map[string]struct {
		value int64
		shown string
	}{
		"512MB":      {512 << 20, "512MiB"},
		"512mb":      {512 << 20, "512MiB"},
		"2GiB":       {2 << 30, "2GiB"},
		"1073741824": {1 << 30, "1GiB"},
		"-1":         {-1, "-1"},
		"0":          {0, "0B"},
	} {
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		var got int64
		sizeFlag(flags, &got, "size", 1, "")
		if err := flags.Parse([]string{"--size=" + text}); err != nil || got != want.value || flags.Lookup("size").Value.String() != want.shown {
			t.Errorf("%s: %d shown as %s, %v, want %d as %s", text, got, flags.Lookup("size").Value, err, want.value, want.shown)
		}
	}
	for _, text := range []string{"", "big", "1XB", "GB"} {
		var got int64
		flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
		sizeFlag(flags, &got, "size", 1, "")
		if err := flags.Parse([]string{"--size=" + text}); err == nil || got != 1 {
			t.Errorf("%q: accepted as %d", text, got)
		}
	}
}
