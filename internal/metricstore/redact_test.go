package metricstore

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestPasswordsAreNotLogged(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(redactor{slog.NewTextHandler(&out, nil)})
	const address = "http://user:secret@127.0.0.1:9009/write"
	log.With("url", address).WithGroup("queue").Info("starting", "url", address, "shards", 3)
	if text := out.String(); strings.Contains(text, "secret") || strings.Count(text, "user:xxxxx@127.0.0.1:9009") != 2 || !strings.Contains(text, "shards=3") {
		t.Error(text)
	}
}
