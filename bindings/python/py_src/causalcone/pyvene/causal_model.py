class CausalModel: pass
