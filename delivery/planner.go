package delivery

// The planner by names that simulation can use: it drives machine and planner in
// one goroutine, step by step.
type (
	// Plan says which queues are tried next.
	Plan = plan
	// PlanItem is one queue that is to be tried.
	PlanItem = item
	// PlanLimits bound what runs at the same time.
	PlanLimits = planLimits
)

// NewPlan makes an empty plan.
func NewPlan(l PlanLimits) *Plan { return newPlan(l) }
