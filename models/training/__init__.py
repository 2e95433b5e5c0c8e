"""What all trainings share: batches by number, optimiser steps, validation, exact resume."""
