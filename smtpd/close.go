package smtpd

// Close gives up what Listen opened, for when Run is never called.
func (s *Server) Close() error {
	s.closeListeners()
	return nil
}
