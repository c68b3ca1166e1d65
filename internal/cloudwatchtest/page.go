package cloudwatchtest

import "net/http"

func (s *Server) page(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
