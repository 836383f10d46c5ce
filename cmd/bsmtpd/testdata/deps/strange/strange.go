package strange // want not in the table
