--> executable follows <--
echo x; echo x-err >&2
--> end executable <--
x-err
--> executable follows <--
echo x; echo x-err >&2
--> end executable <--
x-err
