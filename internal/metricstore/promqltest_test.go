package metricstore

import (
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

func promqltestParser() parser.Parser { return parser.NewParser(promqltest.TestParserOpts) }
