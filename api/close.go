package api

import "errors"

// Close gives up what Listen opened, for when Run is never called.
func (s *Server) Close() error {
	s.mu.Lock()
	doors := s.listeners
	s.listeners = nil
	s.mu.Unlock()
	var errs []error
	for _, d := range doors {
		errs = append(errs, d.l.Close())
	}
	return errors.Join(errs...)
}
