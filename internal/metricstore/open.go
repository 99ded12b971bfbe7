package metricstore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/compression"
)

// damagedDir, below Options.Dir, takes what could not be read.
const damagedDir = "damaged"

// openDB opens the database, putting aside what is damaged and keeps it from
// opening: first single blocks, then the head's chunks (which the write-ahead log
// holds too), then the write-ahead log.
func (s *Store) openDB() error {
	dir := s.opts.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of the metric store: %w", err)
	}
	// It warns of the file that a killed process leaves, which locks nothing.
	lock, err := tsdbutil.NewDirLocker(dir, "tsdb", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return fmt.Errorf("lock the metric store: %w", err)
	}
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("the metric store in %s is in use by another process, or may not be written: %w", dir, err)
	}
	// Blocks are tried before the database is, which when it fails over a block
	// leaves its write-ahead log open.
	s.dropAside()
	s.asideBlocks()
	openErr := s.tryOpen()
	for _, names := range [][]string{{"chunks_head"}, {"wal", "wbl"}} {
		if openErr != nil && !ofThisMoment(openErr) && s.asideHead(names, openErr) {
			openErr = s.tryOpen()
		}
	}
	if openErr != nil {
		return errors.Join(fmt.Errorf("open the metric store in %s: %w", dir, openErr), lock.Release())
	}
	s.lock = lock
	s.reportRepairs()
	for _, d := range s.damage {
		s.opts.Log.Error("stored metrics are damaged", "dir", dir, "detail", d)
	}
	return nil
}

// tryOpen opens the database with a fresh registry, since a failed attempt
// leaves its metrics in the one it got.
func (s *Store) tryOpen() error {
	s.registry = prometheus.NewRegistry()
	s.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	s.stats = tsdb.NewDBStats()
	o := tsdb.DefaultOptions()
	o.NoLockfile = true // held by us, also between attempts
	o.RetentionDuration = s.opts.RetentionTime.Milliseconds()
	o.MaxBytes = s.opts.RetentionBytes
	o.MaxBlockDuration = max(o.MinBlockDuration, min(31*24*time.Hour, s.opts.RetentionTime/10).Milliseconds())
	o.WALCompression = compression.Snappy
	o.EnableExemplarStorage = true
	o.MaxExemplars = maxExemplars
	o.EnableSTAsZeroSample = true
	o.FeatureRegistry = s.features
	var err error
	s.db, err = tsdb.Open(s.opts.Dir, s.opts.Log.With("component", "tsdb"), s.registry, o, s.stats)
	return err
}

// ofThisMoment reports whether the machine kept files from being read, and not what
// is in them: they may be good, and must stay where they are.
func ofThisMoment(err error) bool {
	for _, cause := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EACCES, syscall.EPERM,
		syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// dropAside removes what was put aside longer ago than metrics are kept.
func (s *Store) dropAside() {
	dir := filepath.Join(s.opts.Dir, damagedDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is none
	}
	for _, e := range entries {
		at, err := strconv.ParseInt(e.Name(), 10, 64)
		if err != nil || time.Since(time.Unix(0, at)) < s.opts.RetentionTime {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			s.opts.Log.Warn("damaged metrics of long ago not removed", "error", err)
		}
	}
}

// asideBlocks puts aside the blocks that cannot be opened.
func (s *Store) asideBlocks() {
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return // the database will say so
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		block, err := tsdb.OpenBlock(s.opts.Log, filepath.Join(s.opts.Dir, e.Name()), nil, tsdb.DefaultPostingsDecoderFactory)
		if err == nil {
			err = block.Close()
		}
		if err != nil && !ofThisMoment(err) {
			s.aside(e.Name(), err)
		}
	}
}

// asideHead puts aside files of samples that were not yet in blocks.
func (s *Store) asideHead(names []string, cause error) (moved bool) {
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(s.opts.Dir, name)); err == nil && s.aside(name, cause) {
			moved = true
		}
	}
	return moved
}

// aside moves one file or directory out of the way.
func (s *Store) aside(name string, cause error) bool {
	to := filepath.Join(s.opts.Dir, damagedDir, strconv.FormatInt(time.Now().UnixNano(), 10), name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		s.opts.Log.Error("damaged metrics not put aside", "name", name, "error", err)
		return false
	}
	if err := os.Rename(filepath.Join(s.opts.Dir, name), to); err != nil {
		s.opts.Log.Error("damaged metrics not put aside", "name", name, "error", err)
		return false
	}
	s.damage = append(s.damage, fmt.Sprintf("%s could not be read (%v); it was moved to %s, and metrics that only it had are missing", name, cause, to))
	return true
}

// reportRepairs adds what the database repaired by itself.
func (s *Store) reportRepairs() {
	families, err := s.registry.Gather()
	if err != nil {
		return // a report is not worth failing for
	}
	for _, f := range families {
		n := 0.0
		for _, m := range f.GetMetric() {
			n += m.GetCounter().GetValue()
		}
		if n == 0 {
			continue
		}
		switch f.GetName() {
		case "prometheus_tsdb_wal_corruptions_total":
			s.damage = append(s.damage, "the write-ahead log was damaged; metrics written after the damage are lost")
		case "prometheus_tsdb_mmap_chunk_corruptions_total":
			s.damage = append(s.damage, "memory-mapped chunks were damaged; they were rebuilt from the write-ahead log as far as it reaches")
		}
	}
}
