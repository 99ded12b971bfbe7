// Command catalog knows the products. Version v2 adds the stock to its answers,
// is slow when it is asked to be, and fails when it is asked for all stock.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/vitrine-mesh/vitrine/demo/program"
)

// product is one entry of the products file.
type product struct {
	ID    string  `json:"id"`
	Name  string  `json:"name"`
	Price float64 `json:"price"`
}

// answer is what callers see of a product.
type answer struct {
	product
	Version string   `json:"version"`
	Rating  *float64 `json:"rating,omitempty"` // left out while ratings does not answer
	Stock   *int     `json:"stock,omitempty"`  // from v2 on
}

type catalog struct {
	version  string
	slowness time.Duration
	products []product
	ratings  *program.Client
}

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	c, err := load()
	program.Exit(err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { program.Reply(w, http.StatusOK, "ready") })
	mux.HandleFunc("GET /products", func(w http.ResponseWriter, _ *http.Request) { program.Reply(w, http.StatusOK, c.products) })
	mux.HandleFunc("GET /products/{id}", c.one)
	mux.HandleFunc("GET /stock", c.stock)
	program.Exit(program.Serve(ctx, "catalog "+c.version, mux, nil))
}

func load() (*catalog, error) {
	c := &catalog{version: program.Env("VERSION", "v1"), ratings: program.NewClient(program.Env("RATINGS", "http://ratings:8080"), false)}
	var err error
	if c.slowness, err = time.ParseDuration(program.Env("SLOWNESS", "800ms")); err != nil {
		return nil, fmt.Errorf("environment variable SLOWNESS: %w", err)
	}
	path := program.Env("PRODUCTS", "products.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the products (environment variable PRODUCTS names the file): %w", err)
	}
	if err := json.Unmarshal(data, &c.products); err != nil {
		return nil, fmt.Errorf("read the products of %s: %w", path, err)
	}
	return c, nil
}

// stock is what is left of all products. Version v2 has a fault here: a canary
// with something to see.
func (c *catalog) stock(w http.ResponseWriter, _ *http.Request) {
	if c.version != "v1" {
		program.Fail(w, http.StatusInternalServerError, "stock: division by zero")
		return
	}
	program.Reply(w, http.StatusOK, map[string]int{"products": len(c.products)})
}

func (c *catalog) one(w http.ResponseWriter, r *http.Request) {
	for i, p := range c.products {
		if p.ID != r.PathValue("id") {
			continue
		}
		a := answer{product: p, Version: c.version}
		if c.version != "v1" {
			stock := 10 * (i + 1)
			a.Stock = &stock
			if r.FormValue("slow") != "" {
				time.Sleep(c.slowness)
			}
		}
		var rating struct {
			Stars float64 `json:"stars"`
		}
		if _, err := c.ratings.Call(r.Context(), http.MethodGet, "/ratings/"+p.ID, nil, &rating); err == nil {
			a.Rating = &rating.Stars
		}
		program.Reply(w, http.StatusOK, a)
		return
	}
	program.Fail(w, http.StatusNotFound, "no such product")
}
