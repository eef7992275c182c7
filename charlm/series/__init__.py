"""Number series: tables of them, their symbols, forecasts, and how good forecasts were."""
