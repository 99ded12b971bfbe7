package metricstore

import (
	"context"
	"log/slog"
	"net/url"
)

// redactor takes the passwords out of URLs that Prometheus's own code logs: remote
// write tells where it writes to with every line.
type redactor struct{ slog.Handler }

// Handle implements slog.Handler.
func (h redactor) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(redacted(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h redactor) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		out = append(out, redacted(a))
	}
	return redactor{h.Handler.WithAttrs(out)}
}

// WithGroup implements slog.Handler.
func (h redactor) WithGroup(name string) slog.Handler { return redactor{h.Handler.WithGroup(name)} }

// redacted is a with the password of a URL left out.
func redacted(a slog.Attr) slog.Attr {
	if a.Value = a.Value.Resolve(); a.Key != "url" {
		return a
	}
	if u, err := url.Parse(a.Value.String()); err == nil {
		a.Value = slog.StringValue(u.Redacted())
	}
	return a
}
